// A number format: a grid of elements, and how values are scaled onto it. Knows no tensors and no rounding
// (scaled_rounding.h). Its names are the same on command lines, in files and reports:
//
//   ELEMENT[:GRANULARITY[:RULE]]   float8_e4m3, float8_e4m3:row, int4:group128:asymmetric
//   PRESET[:RULE]                  mxfp8_e4m3, mxfp8_e5m2, mxfp6_e2m3, mxfp6_e3m2, mxfp4, mxint8, nvfp4
//   ELEMENT:tensor[:RULE]:static   float8_e4m3:tensor:static, for the inputs of linears alone
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/formats/format.h"

namespace pi0::formats {

// The values that share a scale.
enum class Granularity {
  none,    // a plain cast
  tensor,  // all of a weight; of an activation a sample's
  row,     // an output channel of a weight, a token of an activation
  group,   // neighbours along the dimension that a matmul sums over; a row's last group may be shorter
  tile     // `group` rows by `group` values of a weight
};

// How a scale follows from the values that share it.
enum class Rule {
  absmax,      // float32: of floats amax / largest, of integers amax / half the number of steps
  scaled,      // as pi0-quant's HEAD: absmax, but values that are all zero stay
  po2,         // a power of two, as pi0-quant's HEAD
  floor,       // E8M0, a power of two of 8 bits, as OCP MX rounds it; the next three as torchao does
  ceil,        //
  even,        //
  rceil,       //
  two_level,   // float8_e4m3 per group, and float32 per tensor
  one_level,   // float8_e4m3 per group
  asymmetric,  // of integers: float32 and a zero point from the smallest and the largest value
};

struct NumberFormat {
  Format element = Format::float32;
  Granularity granularity = Granularity::none;
  int group = 0;             // 16, 32, 64 or 128 for a group, 128 for a tile, otherwise 0
  Rule rule = Rule::absmax;  // absmax for a plain cast
  bool is_static = false;    // the scale follows from a calibration, and not from the values that are rounded
  bool operator==(const NumberFormat&) const = default;
};

// Throws std::invalid_argument that says which part is wrong and what it may be.
NumberFormat parse_number_format(std::string_view name);

// The canonical name: presets by their names, absmax left out.
std::string name_of(const NumberFormat& format);
std::string file_name_of(const NumberFormat& format);  // '-' for ':'

// Names that parse_number_format() takes as first part: elements, then presets.
std::vector<std::string> number_format_names();

// The format when it is one of all_formats without a scale.
std::optional<Format> plain_cast(const NumberFormat& format);

// The same for an activation, which has no tiles: group128 stands for tile128.
NumberFormat for_activations(const NumberFormat& format);

// The same with a scale that follows from the values.
NumberFormat without_static(const NumberFormat& format);

// Where a matmul may multiply by the scales.
enum class ScaleKind {
  none,          // a plain cast
  power_of_two,  // anywhere: value and element have the same mantissa
  row,           // after the sum: one scale for a row or a tensor
  group,         // within the sum: one scale for a group or a tile
  float8_group   // within the sum, element times scale fit bfloat16; after it two_level's float32
};
ScaleKind scale_kind(const NumberFormat& format);

// Bits that a value takes with the scales of its group or tile: E8M0 and float8_e4m3 scales of 8 bits, 16 for integers
// (and a zero point like an element), 32 for other floats. A tensor's or row's scale is not counted. Integers are
// rounded with float32 scales all the same.
double bits_per_value(const NumberFormat& format);

// Bytes of a weight's codes and of all its scales, a tensor's (4 bytes) included. Rows start at whole bytes.
std::int64_t bytes_of(const NumberFormat& format, std::int64_t rows, std::int64_t length);

// Whether bfloat16 holds every value, scale included. Left out of account: values below bfloat16's smallest, 2^-133,
// which float8 elements have where the largest value that shares the scale is below 2^-102.
bool fits_bfloat16(const NumberFormat& format);

}  // namespace pi0::formats
