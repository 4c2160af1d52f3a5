// Number formats that matmul operands and results are rounded to. A format is a grid of values; one table has the name,
// the size and the grid of each. Knows no tensors, no models and no devices.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <type_traits>

namespace pi0::formats {

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

// What a matmul's operands and its result are rounded to.
struct FormatPair {
  Format input = Format::float32;
  Format output = Format::float32;
  bool operator==(const FormatPair&) const = default;
};

struct Properties {
  Format format;
  std::string_view name;  // on command lines, in files and reports
  int code_bits;          // that a value's code takes in memory
  Grid grid;
};

// One row per format, in the order of the enum. Overflow is that of libtorch 2.13's casts on a CPU: e4m3 (e4m3fn)
// saturates, the others overflow to infinity. Older versions and CUDA differ, so this table decides.
inline constexpr std::array format_table = {
    Properties{Format::float32, "float32", 32, {23, -126, 3.4028234663852886e38F, Overflow::infinity}},
    Properties{Format::float16, "float16", 16, {10, -14, 65504.0F, Overflow::infinity}},
    Properties{Format::bfloat16, "bfloat16", 16, {7, -126, 3.3895313892515355e38F, Overflow::infinity}},
    Properties{Format::float8_e4m3, "float8_e4m3", 8, {3, -6, 448.0F, Overflow::saturate}},
    Properties{Format::float8_e5m2, "float8_e5m2", 8, {2, -14, 57344.0F, Overflow::infinity}}};

inline constexpr auto all_formats = [] {
  std::array<Format, format_table.size()> formats{};
  for (std::size_t i = 0; i < formats.size(); ++i) formats[i] = format_table[i].format;
  return formats;
}();

// On a GPU for constant formats only: the table is not in its memory.
constexpr const Properties& properties_of(Format format) { return format_table[static_cast<std::size_t>(format)]; }
static_assert([] {
  for (const Format format : all_formats) {
    if (properties_of(format).format != format) return false;
  }
  return true;
}());

constexpr Grid grid_of(Format format) { return properties_of(format).grid; }
constexpr int code_bits(Format format) { return properties_of(format).code_bits; }
constexpr std::string_view name_of(Format format) { return properties_of(format).name; }

constexpr std::optional<Format> find_format(std::string_view name) {  // nothing for an unknown name
  for (const Properties& properties : format_table) {
    if (properties.name == name) return properties.format;
  }
  return std::nullopt;
}

// The smallest magnitude that rounds to beyond the format's largest value: half a step above it. Infinity for float32.
constexpr float first_beyond(Format format) {
  if (format == Format::float32) return std::numeric_limits<float>::infinity();
  const Grid grid = grid_of(format);
  const std::uint32_t exponent = std::bit_cast<std::uint32_t>(grid.largest) & 0x7F800000U;
  const auto steps = static_cast<std::uint32_t>(grid.mantissa_bits + 1) << 23;
  return grid.largest + std::bit_cast<float>(exponent - steps);
}

// Whether bfloat16 can hold every value of the format: as many bits of mantissa, and its range, subnormals included.
constexpr bool fits_bfloat16(Format format) {
  const Grid grid = grid_of(format), wide = grid_of(Format::bfloat16);
  return grid.mantissa_bits <= wide.mantissa_bits && grid.largest <= wide.largest &&
         grid.min_exponent - grid.mantissa_bits >= wide.min_exponent - wide.mantissa_bits;
}

// Calls `call` with the format as a compile-time constant, and returns its result.
template <Format format>
using FormatConstant = std::integral_constant<Format, format>;

template <std::size_t first = 0, class Call>
[[gnu::always_inline]] constexpr auto with_format(Format format, const Call& call) {
  constexpr FormatConstant<all_formats[first]> known{};
  if constexpr (first + 1 < all_formats.size()) {
    if (format != known()) return with_format<first + 1>(format, call);
  }
  return call(known);
}

}  // namespace pi0::formats
