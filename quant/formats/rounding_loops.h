// The loops over plain memory, written once and compiled for several instruction sets; everything is in
// an unnamed namespace so that no copy leaks to another.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "quant/formats/rounding_kernels.h"
#include "quant/formats/rounding_value.h"

namespace pi0::formats {
namespace {

// Largest magnitudes, one per lane: GCC makes vectors of the lanes, but not of a maximum over a loop.
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

template <Format format>
float round_all(const float* in, float* out, std::int64_t count) {
  Largest largest;
  for_all(count, [&](std::int64_t i, std::int64_t lane) {
    largest.see(lane, in[i]);
    out[i] = round_one<format>(in[i]);
  });
  return largest.value();
}

template <Format format, class Code, bool from_bfloat16>
float encode_all(const void* in, Code* codes, std::int64_t count) {
  Largest largest;
  for_all(count, [&](std::int64_t i, std::int64_t lane) {
    float value;
    if constexpr (from_bfloat16) {
      value = float_of_bfloat16(static_cast<const std::uint16_t*>(in)[i]);
    } else {
      value = static_cast<const float*>(in)[i];
    }
    largest.see(lane, value);
    codes[i] = static_cast<Code>(code_of<format>(round_one<format>(value)));
  });
  return largest.value();
}

float round(const float* in, float* out, std::int64_t count, Format format) {
  return with_format(format, [&](auto known) {
    if constexpr (known() == Format::float32) {
      if (in != out) std::memcpy(out, in, static_cast<std::size_t>(count) * sizeof(float));
      return 0.0F;
    } else {
      return round_all<known()>(in, out, count);
    }
  });
}

float encode(const void* in, bool is_bfloat16, void* codes, std::int64_t count, Format format) {
  return with_format(format, [&](auto known) {
    if constexpr (known() == Format::float32) {
      return 0.0F;
    } else {
      using Code = CodeOf<known()>;
      auto* const out = static_cast<Code*>(codes);
      return is_bfloat16 ? encode_all<known(), Code, true>(in, out, count)
                         : encode_all<known(), Code, false>(in, out, count);
    }
  });
}

template <Format format>
ErrorSums round_and_compare_all(float* values, const float* reference, std::int64_t count) {
  constexpr std::int64_t lanes = Largest::lanes, block = 32 * lanes;
  ErrorSums sums;
  Largest largest;
  for (std::int64_t first = 0; first < count; first += block) {
    // float32 is exact enough for so few, double for their sums.
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
  sums.largest = largest.value();
  return sums;
}

ErrorSums round_and_compare(float* values, const float* reference, std::int64_t count, Format format) {
  return with_format(format, [&](auto known) { return round_and_compare_all<known()>(values, reference, count); });
}

constexpr RoundingKernels kernels = {round, encode, round_and_compare};

}  // namespace
}  // namespace pi0::formats
