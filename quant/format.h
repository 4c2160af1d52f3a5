// Number formats that matmul operands and results are rounded to: a grid of values and, around it, a
// rule that scales values onto it. Knows no tensors and no models.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

namespace pi0::quant {

enum class Overflow {
  saturate,  // beyond the largest value, infinities included: the largest value
  infinity   // beyond the largest value: infinity
};

// A binary floating-point grid inside float32. NaN stays NaN on every grid.
struct Grid {
  int mantissa_bits;  // without the implicit one
  int min_exponent;   // of the smallest normal value; below it values are evenly spaced
  float largest;      // finite
  Overflow overflow;
};

enum class Format { float32, float16, bfloat16, float8_e4m3, float8_e5m2 };

inline constexpr std::array all_formats = {Format::float32, Format::float16, Format::bfloat16, Format::float8_e4m3,
                                           Format::float8_e5m2};

// As libtorch 2.13 casts on a CPU: e4m3 (e4m3fn) saturates, the others overflow to infinity. Older
// versions and CUDA differ, so the rule is ours.
constexpr Grid grid_of(Format format) {
  switch (format) {
    case Format::float16:
      return {10, -14, 65504.0F, Overflow::infinity};
    case Format::bfloat16:
      return {7, -126, 3.3895313892515355e38F, Overflow::infinity};
    case Format::float8_e4m3:
      return {3, -6, 448.0F, Overflow::saturate};
    case Format::float8_e5m2:
      return {2, -14, 57344.0F, Overflow::infinity};
    case Format::float32:
      break;
  }
  return {23, -126, 3.4028234663852886e38F, Overflow::infinity};
}

// The least magnitude that rounding carries past the format's largest: half a step above it. Infinity for
// float32.
constexpr float first_beyond(Format format) {
  if (format == Format::float32) return std::numeric_limits<float>::infinity();
  const Grid grid = grid_of(format);
  const std::uint32_t exponent = std::bit_cast<std::uint32_t>(grid.largest) & 0x7F800000U;
  const auto steps = static_cast<std::uint32_t>(grid.mantissa_bits + 1) << 23;
  return grid.largest + std::bit_cast<float>(exponent - steps);
}

std::string_view name_of(Format format);
Format parse_format(std::string_view name);  // throws std::invalid_argument listing the known names

// What a matmul's operands and its result are rounded to.
struct FormatPair {
  Format input = Format::float32;
  Format output = Format::float32;
  bool operator==(const FormatPair&) const = default;
};

}  // namespace pi0::quant
