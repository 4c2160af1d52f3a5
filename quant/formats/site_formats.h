// How one matmul is quantized: number formats by role, how its sums are accumulated, and what is done to a linear's
// operands before.
#pragma once

#include <optional>

#include "quant/formats/accumulator.h"
#include "quant/formats/noise.h"
#include "quant/formats/number_format.h"

namespace pi0::formats {

// Changes of a linear's operands that leave the unrounded product as it is, but for clipping.
struct Methods {
  // Multiplies inputs and weights by a Hadamard matrix, in blocks of 64 inputs or of the largest power of two below
  // that divides In.
  bool rotate = false;

  // Divides each input channel by max|x|^alpha / max|w|^(1 - alpha), which its weights are multiplied by; alpha from 0
  // to 1. max|x| is of a calibration.
  std::optional<double> smooth = {};

  // Clips weights to this percentile of their magnitudes, and inputs to that of a calibration.
  std::optional<double> clip = {};

  bool any() const { return rotate || smooth || clip; }
  bool operator==(const Methods&) const = default;
};

struct SiteFormats {
  NumberFormat input = {};   // of activations; of an attention all operands, with dynamic scales
  NumberFormat weight = {};  // of a linear, and of its bias if it is a plain cast; else the bias stays as it is
  NumberFormat output = {};
  std::optional<NumberFormat> kv_cache = {};  // of the prefix's keys and values; none: kept as they are
  std::optional<NumberFormat> vector = {};    // of operations between products; none: as they are
  Methods methods = {};
  Accumulator accumulator = {};     // of attention's products too, but for those that encode operands
  std::optional<Noise> noise = {};  // of outputs, after they are rounded

  SiteFormats() = default;
  // The input's format is also that of weights, as in pi0-quant; weights have their own scale.
  SiteFormats(const NumberFormat& both, const NumberFormat& result)
      : input(both), weight(without_static(both)), output(result) {}
  SiteFormats(Format both, Format result) : SiteFormats(NumberFormat{both}, NumberFormat{result}) {}
  bool operator==(const SiteFormats&) const = default;

  bool has_weight_of_its_own() const { return weight != without_static(input); }
  // What products read of an operand in that format: ipt and systolic encode it, whatever it was rounded to.
  NumberFormat as_operand(const NumberFormat& format) const {
    return encodes_operands(accumulator) ? NumberFormat{Format::float8_e4m3} : format;
  }
  bool needs_calibration() const { return methods.smooth || input.is_static; }
};

// Throws std::invalid_argument that names the format and its role if static scales are asked of anything but inputs, or
// of inputs that are rotated, whose range no calibration knows.
void check(const SiteFormats& formats);

}  // namespace pi0::formats
