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

// A binary floating-point grid inside float32. NaN stays NaN on every grid. Integers are grids whose steps are all one;
// their codes, in two's complement, also have -(largest + 1).
struct Grid {
  int mantissa_bits;  // without the implicit one
  int min_exponent;   // of the smallest normal value; below it values are evenly spaced
  float largest;      // finite
  Overflow overflow;
};

// Grids of elements. NumberFormat (number_format.h) says how values are scaled onto one.
enum class Format {
  float32,
  float16,
  bfloat16,
  float8_e4m3,
  float8_e5m2,
  float6_e2m3,
  float6_e3m2,
  float4_e2m1,
  int2,
  int3,
  int4,
  int5,
  int6,
  int7,
  int8
};

struct Properties {
  Format format;
  std::string_view name;  // on command lines, in files and reports
  int code_bits;          // that a value's code takes in memory
  Grid grid;
};

// One row per format, in the order of the enum. Overflow is that of libtorch 2.13's casts on a CPU: e4m3 (e4m3fn)
// saturates, the others overflow to infinity. Older versions and CUDA differ, so this table decides. Formats of fewer
// bits have no infinity, and no code for NaN.
inline constexpr std::array format_table = {
    Properties{Format::float32, "float32", 32, {23, -126, 3.4028234663852886e38F, Overflow::infinity}},
    Properties{Format::float16, "float16", 16, {10, -14, 65504.0F, Overflow::infinity}},
    Properties{Format::bfloat16, "bfloat16", 16, {7, -126, 3.3895313892515355e38F, Overflow::infinity}},
    Properties{Format::float8_e4m3, "float8_e4m3", 8, {3, -6, 448.0F, Overflow::saturate}},
    Properties{Format::float8_e5m2, "float8_e5m2", 8, {2, -14, 57344.0F, Overflow::infinity}},
    Properties{Format::float6_e2m3, "float6_e2m3", 6, {3, 0, 7.5F, Overflow::saturate}},
    Properties{Format::float6_e3m2, "float6_e3m2", 6, {2, -2, 28.0F, Overflow::saturate}},
    Properties{Format::float4_e2m1, "float4_e2m1", 4, {1, 0, 6.0F, Overflow::saturate}},
    Properties{Format::int2, "int2", 2, {0, 0, 1.0F, Overflow::saturate}},
    Properties{Format::int3, "int3", 3, {1, 1, 3.0F, Overflow::saturate}},
    Properties{Format::int4, "int4", 4, {2, 2, 7.0F, Overflow::saturate}},
    Properties{Format::int5, "int5", 5, {3, 3, 15.0F, Overflow::saturate}},
    Properties{Format::int6, "int6", 6, {4, 4, 31.0F, Overflow::saturate}},
    Properties{Format::int7, "int7", 7, {5, 5, 63.0F, Overflow::saturate}},
    Properties{Format::int8, "int8", 8, {6, 6, 127.0F, Overflow::saturate}}};

// On a GPU for constant formats only: the table is not in its memory.
constexpr const Properties& properties_of(Format format) { return format_table[static_cast<std::size_t>(format)]; }
static_assert([] {
  for (std::size_t i = 0; i < format_table.size(); ++i) {
    if (format_table[i].format != static_cast<Format>(i)) return false;
  }
  return true;
}());

// The plain casts that matmuls know by themselves: dtypes, kernels of every device, sweeps' pairs.
inline constexpr std::array all_formats = {Format::float32, Format::float16, Format::bfloat16, Format::float8_e4m3,
                                           Format::float8_e5m2};

// Floating-point elements of few bits, which take scales.
inline constexpr std::array scaled_floats = {Format::float8_e4m3, Format::float8_e5m2, Format::float6_e2m3,
                                             Format::float6_e3m2, Format::float4_e2m1};

constexpr bool is_integer(Format format) { return format >= Format::int2; }

constexpr Grid grid_of(Format format) { return properties_of(format).grid; }
constexpr int code_bits(Format format) { return properties_of(format).code_bits; }
constexpr std::string_view name_of(Format format) { return properties_of(format).name; }

// One of all_formats; nothing for another name.
constexpr std::optional<Format> find_format(std::string_view name) {
  for (const Format format : all_formats) {
    if (name_of(format) == name) return format;
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

template <Format format>
using FormatConstant = std::integral_constant<Format, format>;

// Calls `call` with a format of the list as a compile-time constant, and returns its result.
template <const auto& list, std::size_t first = 0, class Call>
[[gnu::always_inline]] constexpr auto with_format_of(Format format, const Call& call) {
  constexpr FormatConstant<list[first]> known{};
  if constexpr (first + 1 < list.size()) {
    if (format != known()) return with_format_of<list, first + 1>(format, call);
  }
  return call(known);
}

// The same with one of all_formats.
template <class Call>
[[gnu::always_inline]] constexpr auto with_format(Format format, const Call& call) {
  return with_format_of<all_formats>(format, call);
}

}  // namespace pi0::formats
