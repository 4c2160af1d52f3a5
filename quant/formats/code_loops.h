// Packed codes: from bytes that hold one code each, back, and to values. For several instruction sets like
// rounding_loops.h.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "quant/formats/bfloat16.h"
#include "quant/formats/rounding_value.h"
#include "quant/formats/scaled_rounding.h"

namespace pi0::formats {
namespace {

static_assert(std::endian::native == std::endian::little);  // codes are cut out of words

// Calls one(i, lane); every group of a format is a multiple of as many lanes.
template <class One>
[[gnu::always_inline]] inline void for_group(std::int64_t count, const One& one) {
  constexpr std::int64_t lanes = 16;
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
#pragma GCC ivdep
    for (std::int64_t lane = 0; lane < lanes; ++lane) one(i + lane, lane);
  }
  for (; i < count; ++i) one(i, 0);
}

// Codes are unpacked as many at a time. A multiple of 8 ends at a whole byte, whatever a code's bits.
constexpr std::int64_t piece_length = 512;

template <class Piece>
[[gnu::always_inline]] inline void for_pieces(std::int64_t count, const Piece& piece) {
  for (std::int64_t first = 0; first < count; first += piece_length) {
    piece(first, std::min(piece_length, count - first));
  }
}

void pack_nibbles(const std::uint8_t* codes, std::int64_t count, std::uint8_t* packed) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count / 2; ++i) {
    packed[i] = static_cast<std::uint8_t>(codes[2 * i] | codes[2 * i + 1] << 4);
  }
  if (count % 2 != 0) packed[count / 2] = codes[count - 1];
}

void unpack_nibbles(const std::uint8_t* packed, std::int64_t count, std::uint8_t* codes) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count / 2; ++i) {
    codes[2 * i] = packed[i] & 15;
    codes[2 * i + 1] = packed[i] >> 4;
  }
  if (count % 2 != 0) codes[count - 1] = packed[count / 2] & 15;
}

// Eight codes fill `bits` bytes.
void pack(const std::uint8_t* codes, std::int64_t count, int bits, std::uint8_t* packed) {
  if (bits == 8) {
    std::memcpy(packed, codes, static_cast<std::size_t>(count));
    return;
  }
  if (bits == 4) return pack_nibbles(codes, count, packed);
  for (std::int64_t i = 0; i < count; i += 8, packed += bits) {
    const std::int64_t some = std::min<std::int64_t>(8, count - i);
    std::uint64_t word = 0;
    for (std::int64_t j = 0; j < some; ++j) word |= static_cast<std::uint64_t>(codes[i + j]) << (bits * j);
    std::memcpy(packed, &word, static_cast<std::size_t>((some * bits + 7) / 8));
  }
}

void unpack(const std::uint8_t* packed, std::int64_t count, int bits, std::uint8_t* codes) {
  if (bits == 8) {
    std::memcpy(codes, packed, static_cast<std::size_t>(count));
    return;
  }
  if (bits == 4) return unpack_nibbles(packed, count, codes);
  const std::uint64_t mask = (1U << bits) - 1;
  for (std::int64_t i = 0; i < count; i += 8, packed += bits) {
    const std::int64_t some = std::min<std::int64_t>(8, count - i);
    std::uint64_t word = 0;
    std::memcpy(&word, packed, static_cast<std::size_t>((some * bits + 7) / 8));
    for (std::int64_t j = 0; j < some; ++j) codes[i + j] = static_cast<std::uint8_t>(word >> (bits * j) & mask);
  }
}

// The value of a float's code, without float32 subnormals on the way, which are slow.
template <Format format>
struct FloatValue {
  float operator()(std::uint32_t code) const {
    constexpr Grid grid = grid_of(format);
    constexpr int bits = code_bits(format);
    constexpr auto bias = static_cast<std::uint32_t>(126 + grid.min_exponent) << 23;
    constexpr float smallest_of_format = std::bit_cast<float>(bias + (1U << 23));
    const std::uint32_t magnitude = code & ((1U << (bits - 1)) - 1);
    const std::uint32_t sign = (code >> (bits - 1)) << 31;
    const std::uint32_t normal = (magnitude << (23 - grid.mantissa_bits)) + bias;
    const float subnormal = std::bit_cast<float>(normal + (1U << 23)) - smallest_of_format;
    std::uint32_t value = above(1U << grid.mantissa_bits, magnitude) ? bits_of(subnormal) : normal;
    if constexpr (bits == 8) {
      constexpr std::uint32_t beyond = (bits_of(grid.largest) - bias) >> (23 - grid.mantissa_bits);
      constexpr std::uint32_t next = grid.overflow == Overflow::infinity ? infinity_bits : 0x7FC00000U;
      value = above(magnitude, beyond) ? next : value;
      value = above(magnitude, beyond + 1) ? 0x7FC00000U : value;
    }
    return std::bit_cast<float>(value | sign);
  }
};

struct IntegerValue {
  int unused_bits;
  float operator()(std::uint32_t code) const {
    return static_cast<float>(static_cast<std::int32_t>(code << unused_bits) >> unused_bits);
  }
};

template <class Call>
[[gnu::always_inline]] inline void with_code_value(Format element, const Call& call) {
  if (is_integer(element)) return call(IntegerValue{32 - code_bits(element)});
  with_format_of<scaled_floats>(element, [&](auto known) { call(FloatValue<known()>{}); });
}

// Calls put(row, first value, count, elements less zero point, scale) for what lies under one scale, or less.
template <class Put>
[[gnu::always_inline]] inline void for_elements(const CodesFrom& operand, const NumberFormat& format,
                                                std::int64_t first_row, std::int64_t rows, std::int64_t length,
                                                const Put& put) {
  const CodeLayout layout = layout_of(format, length);
  const int bits = code_bits(format.element);
  const std::int64_t group = format.group == 0 ? length : format.group;
  with_code_value(format.element, [&](const auto value_of) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::uint8_t* const packed = operand.codes + (first_row + row) * layout.row_bytes;
      const std::int64_t scales = (first_row + row) / layout.rows_per_scale * layout.scales_per_row;
      for_pieces(length, [&](std::int64_t first, std::int64_t size) {
        std::uint8_t codes[piece_length];
        float elements[piece_length];
        unpack(packed + first * bits / 8, size, bits, codes);
        for (std::int64_t i = 0; i < size; ++i) elements[i] = value_of(codes[i]);
        for (std::int64_t i = 0; i < size;) {
          const std::int64_t place = scales + (first + i) / group;
          const std::int64_t count = std::min(size - i, group - (first + i) % group);
          if (format.rule == Rule::asymmetric) {
            for_group(count, [&](std::int64_t j, std::int64_t) { elements[i + j] -= operand.zero_points[place]; });
          }
          put(row, first + i, count, elements + i, layout.scales_per_row == 0 ? 1 : operand.scales[place]);
          i += count;
        }
      });
    }
  });
}

void decode_scaled(const CodesFrom& operand, const NumberFormat& format, std::int64_t first_row,
                   const Rows<float>& to) {
  for_elements(operand, format, first_row, to.rows, to.length,
               [&](std::int64_t row, std::int64_t begin, std::int64_t count, const float* elements, float scale) {
                 float* const out = to.values + row * to.stride + begin;
                 for_group(count, [&](std::int64_t i, std::int64_t) { out[i] = elements[i] * scale; });
               });
}

void decode_elements(const CodesFrom& operand, const NumberFormat& format, std::int64_t first_row,
                     const Rows<std::uint16_t>& to) {
  for_elements(operand, format, first_row, to.rows, to.length,
               [&](std::int64_t row, std::int64_t begin, std::int64_t count, const float* elements, float) {
                 std::uint16_t* const out = to.values + row * to.stride + begin;
                 for_group(count, [&](std::int64_t i, std::int64_t) {
                   out[i] = static_cast<std::uint16_t>(bits_of(elements[i]) >> 16);
                 });
               });
}

}  // namespace
}  // namespace pi0::formats
