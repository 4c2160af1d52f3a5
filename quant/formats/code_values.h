// The value of every 8-bit code, computed at compile time from the format's grid.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "quant/formats/format.h"

namespace pi0::formats {
namespace {

// The value of a code without its sign bit: exponent, then mantissa; subnormals as in IEEE 754.
constexpr float magnitude_of_code(std::uint32_t code, const Grid& grid) {
  const std::uint32_t mantissa = code & ((1U << grid.mantissa_bits) - 1);
  const int exponent = static_cast<int>(code >> grid.mantissa_bits);
  const auto power = [](int n) { return std::bit_cast<float>(static_cast<std::uint32_t>(n + 127) << 23); };
  const float fraction = static_cast<float>(mantissa) * power(-grid.mantissa_bits);
  return exponent == 0 ? fraction * power(grid.min_exponent)
                       : (1.0F + fraction) * power(exponent - 1 + grid.min_exponent);
}

// Codes above the largest value's are infinity, on a grid that has it, and NaN.
template <Format format>
constexpr std::array<float, 256> code_values = [] {
  static_assert(code_bits(format) == 8);
  constexpr Grid grid = grid_of(format);
  constexpr float nan = std::bit_cast<float>(0x7FC00000U), infinity = std::bit_cast<float>(0x7F800000U);
  std::array<float, 256> values{};
  bool beyond_was_seen = false;
  for (std::uint32_t code = 0; code < 128; ++code) {
    float value = magnitude_of_code(code, grid);
    float negative = -value;
    if (value > grid.largest) {
      const bool is_infinite = grid.overflow == Overflow::infinity && !beyond_was_seen;
      value = is_infinite ? infinity : nan;
      negative = is_infinite ? -infinity : nan;
      beyond_was_seen = true;
    }
    values[code] = value;
    values[code + 128] = negative;
  }
  return values;
}();

}  // namespace
}  // namespace pi0::formats
