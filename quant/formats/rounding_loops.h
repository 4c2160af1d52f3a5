// The loops over plain memory, written once and compiled for several instruction sets. Everything is in an unnamed
// namespace, so that the linker does not take one instruction set's function for another's.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "quant/formats/rounding_kernels.h"
#include "quant/formats/rounding_value.h"

namespace pi0::formats {
namespace {

// Largest magnitudes, one per lane: GCC vectorizes the lanes, but not a maximum over a loop.
class Largest {
 public:
  static constexpr std::int64_t lanes = 32;

  void see(std::int64_t lane, float value) {
    const std::uint32_t magnitude = bits_of(value) & 0x7FFFFFFFU;
    const std::uint32_t counted = magnitude & ~nan_mask(magnitude);
    bits_[lane] = above(bits_[lane], counted) ? bits_[lane] : counted;
  }

  float value() const {
    std::uint32_t most = 0;
    for (const std::uint32_t bits : bits_) most = most > bits ? most : bits;
    return std::bit_cast<float>(most);
  }

 private:
  std::uint32_t bits_[lanes] = {};
};

// Calls one(i, lane) for all of `count` values.
template <class One>
[[gnu::always_inline]] inline void for_all(std::int64_t count, const One& one) {
  std::int64_t i = 0;
  for (; i + Largest::lanes <= count; i += Largest::lanes) {
#pragma GCC ivdep
    for (std::int64_t lane = 0; lane < Largest::lanes; ++lane) one(i + lane, lane);
  }
  for (; i < count; ++i) one(i, 0);
}

// Plain casts have no scales: values are rounded one by one, so that rows without gaps are one long row.
template <class Value>
Rows<Value> joined(const Rows<Value>& rows) {
  if (rows.stride != rows.length) return rows;
  return {rows.values, 1, rows.rows * rows.length, rows.rows * rows.length};
}

template <Format format>
float round_all(const Rows<const float>& from, float* to) {
  Largest largest;
  for (std::int64_t row = 0; row < from.rows; ++row) {
    const float* const in = from.values + row * from.stride;
    float* const out = to + row * from.stride;
    for_all(from.length, [&](std::int64_t i, std::int64_t lane) {
      largest.see(lane, in[i]);
      out[i] = round_one<format>(in[i]);
    });
  }
  return largest.value();
}

template <Format format, Format stored>
float encode_all(const Rows<const void>& from, CodeOf<format>* codes) {
  static_assert(stored == Format::float32 || stored == Format::bfloat16);
  Largest largest;
  for (std::int64_t row = 0; row < from.rows; ++row) {
    const auto* const in = static_cast<const CodeOf<stored>*>(from.values) + row * from.stride;
    auto* const out = codes + row * from.stride;
    for_all(from.length, [&](std::int64_t i, std::int64_t lane) {
      float value;
      if constexpr (stored == Format::bfloat16) {
        value = float_of_bfloat16(in[i]);
      } else {
        value = in[i];
      }
      largest.see(lane, value);
      out[i] = static_cast<CodeOf<format>>(code_of<format>(round_one<format>(value)));
    });
  }
  return largest.value();
}

float round(const Rows<const float>& gapped, float* to, Format format) {
  const Rows<const float> from = joined(gapped);
  return with_format(format, [&](auto known) {
    if constexpr (known() == Format::float32) {
      for (std::int64_t row = 0; from.values != to && row < from.rows; ++row) {
        std::memcpy(to + row * from.stride, from.values + row * from.stride,
                    static_cast<std::size_t>(from.length) * sizeof(float));
      }
      return 0.0F;
    } else {
      return round_all<known()>(from, to);
    }
  });
}

float encode(const Rows<const void>& gapped, Format stored, void* codes, Format format) {
  const Rows<const void> from = joined(gapped);
  return with_format(format, [&](auto known) {
    if constexpr (known() == Format::float32) {
      return 0.0F;
    } else {
      auto* const to = static_cast<CodeOf<known()>*>(codes);
      return stored == Format::bfloat16 ? encode_all<known(), Format::bfloat16>(from, to)
                                        : encode_all<known(), Format::float32>(from, to);
    }
  });
}

template <Format format>
void round_and_compare_row(float* values, const float* reference, std::int64_t count, ErrorSums& sums,
                           Largest& largest) {
  constexpr std::int64_t lanes = Largest::lanes, block = 32 * lanes;
  for (std::int64_t first = 0; first < count; first += block) {
    // float32 is exact enough for a block; blocks are added in double.
    float squares[lanes] = {}, power[lanes] = {};
    std::int32_t nonfinite[lanes] = {};
    const std::int64_t size = count - first < block ? count - first : block;
    for_all(size, [&](std::int64_t i, std::int64_t lane) {
      const float exact = reference[first + i], value = values[first + i];
      const float result = rounded_to<format>(value);
      if constexpr (format != Format::float32) largest.see(lane, value);
      values[first + i] = result;
      const float difference = exact - result;
      squares[lane] += difference * difference;
      power[lane] += exact * exact;
      const auto is_finite = [](float x) { return ((bits_of(x) & infinity_bits) - infinity_bits) >> 31; };
      nonfinite[lane] += static_cast<std::int32_t>(is_finite(exact) & ~is_finite(result));
    });
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      sums.squares += static_cast<double>(squares[lane]);
      sums.power += static_cast<double>(power[lane]);
      sums.nonfinite += nonfinite[lane];
    }
  }
}

ErrorSums round_and_compare(const Rows<float>& gapped, const float* reference, Format format) {
  const Rows<float> rows = joined(gapped);
  return with_format(format, [&](auto known) {
    ErrorSums sums;
    Largest largest;
    for (std::int64_t row = 0; row < rows.rows; ++row) {
      round_and_compare_row<known()>(rows.values + row * rows.stride, reference + row * rows.stride, rows.length, sums,
                                     largest);
    }
    sums.largest = largest.value();
    return sums;
  });
}

constexpr RoundingKernels kernels = {round, encode, round_and_compare};

}  // namespace
}  // namespace pi0::formats
