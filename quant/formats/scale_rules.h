// Scales from the ranges of the values that share them, for as many as a chunk holds. Compiled for several instruction
// sets each, in an unnamed namespace like rounding_loops.h.
#pragma once

#include <bit>
#include <cstdint>

#include "quant/formats/number_format.h"
#include "quant/formats/rounding_value.h"
#include "quant/formats/scaled_rounding.h"

namespace pi0::formats {
namespace {

constexpr float smallest_normal = std::bit_cast<float>(1U << 23);
constexpr float infinity = std::bit_cast<float>(infinity_bits);
constexpr float not_a_number = std::bit_cast<float>(0x7FC00000U);

// A value becomes rounded(value / by or value * by, + zero point), then (that - zero point) * scale.
struct Scale {
  float by = 1;  // divisor or factor: see divides()
  float scale = 1;
  float zero_point = 0;
};

struct ScaleChunk {
  static constexpr std::int64_t most = 64;
  std::int64_t count = 0;
  float smallest[most];  // of asymmetric only
  float largest[most];   // otherwise the largest magnitude
  float by[most];
  float scale[most];
  float zero_point[most];

  Scale at(std::int64_t i) const { return {by[i], scale[i], zero_point[i]}; }
};

// What is divided by: not a power of two, or one whose inverse float32 may not hold.
bool divides(const NumberFormat& format) {
  if (is_integer(format.element)) return format.rule == Rule::floor;
  if (format.granularity == Granularity::none) return false;
  return format.rule == Rule::absmax || format.rule == Rule::scaled || format.rule == Rule::po2;
}

// To the nearest integer, ties to even; of magnitudes below 2^22, beyond which it stays about as it is.
float nearest_integer(float value) {
  constexpr float magic = 12582912.0F;  // 1.5 * 2^23
  return (value + magic) - magic;
}

float at_least(float value, float least) { return value < least ? least : value; }  // NaN stays
float at_most(float value, float most) { return value > most ? most : value; }
std::int32_t at_least(std::int32_t value, std::int32_t least) { return value < least ? least : value; }
std::int32_t at_most(std::int32_t value, std::int32_t most) { return value > most ? most : value; }

// The exponent of the value; of a subnormal one, one less than that of the smallest normal value.
std::int32_t exponent_of(float value) { return static_cast<std::int32_t>((bits_of(value) >> 23) & 255U) - 127; }

float exponent_value(std::int32_t exponent) {  // from -127 to 127
  return std::bit_cast<float>(exponent == -127 ? 1U << 22 : static_cast<std::uint32_t>(exponent + 127) << 23);
}

// An E8M0 scale of that exponent, and its inverse; of exponents without one `smallest_factor`.
Scale e8m0_scale(std::int32_t exponent, float largest, float smallest_factor) {
  const std::int32_t within = at_most(at_least(exponent, -127), 127);
  const float scale = exponent_value(within);
  return {within == -127 ? smallest_factor : exponent_value(-within), largest != largest ? not_a_number : scale, 0};
}

// log2 of a positive value, as a float32, rounded up to an integer. Just above a power of two the float32 logarithm
// is an integer already: the sum of exponent and rest rounds as it does.
std::int32_t ceil_log2(float value) {
  const bool is_subnormal = value < smallest_normal;
  const std::uint32_t bits = bits_of(is_subnormal ? value * 16777216.0F : value);
  const std::int32_t exponent = static_cast<std::int32_t>(bits >> 23) - (is_subnormal ? 127 + 24 : 127);
  constexpr float log2_e = 1.44269504F / 8388608.0F;  // for steps of the mantissa
  const float rest = at_most(static_cast<float>(static_cast<std::int32_t>(bits & 0x7FFFFFU)) * log2_e, 0.5F);
  const float logarithm = static_cast<float>(exponent) + rest;
  const auto whole = static_cast<std::int32_t>(logarithm);  // toward zero
  return whole + (static_cast<float>(whole) < logarithm ? 1 : 0);
}

// What pi0-quant's HEAD takes: the power of two at or below largest / power, 1 where all is zero.
Scale po2_scale(float largest, float power) {
  if (largest == 0) return {};
  float ratio = at_least(largest / power, std::bit_cast<float>(1U));
  if (!(ratio < infinity)) return {1, not_a_number, 0};
  if (ratio < smallest_normal) {
    const std::uint32_t top = std::bit_floor(bits_of(ratio));
    ratio = std::bit_cast<float>(top);
  } else {
    ratio = std::bit_cast<float>(bits_of(ratio) & infinity_bits);
  }
  return {ratio, ratio, 0};
}

template <class ScaleOf>
[[gnu::always_inline]] inline void fill(ScaleChunk& chunk, const ScaleOf& scale_of) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < chunk.count; ++i) {
    const Scale scale = scale_of(chunk.smallest[i], chunk.largest[i]);
    chunk.by[i] = scale.by;
    chunk.scale[i] = scale.scale;
    chunk.zero_point[i] = scale.zero_point;
  }
}

void find_integer_scales(ScaleChunk& chunk, const NumberFormat& format) {
  const float most = grid_of(format.element).largest, least = -most - 1;
  switch (format.rule) {
    case Rule::floor:  // its elements have 6 bits of fraction
      return fill(chunk, [](float, float largest) {
        const std::int32_t exponent = at_most(exponent_of(largest), 127);
        const float scale = largest != largest ? not_a_number : exponent_value(exponent) * 0.015625F;
        return Scale{scale, scale, 0};
      });
    case Rule::asymmetric:
      return fill(chunk, [=](float smallest, float largest) {
        const float scale = at_least((largest - smallest) / (most - least), smallest_normal);
        const float zero_point = at_most(at_least(least - nearest_integer(smallest / scale), least), most);
        const float nan_as_integer = -2147483648.0F;  // on x86
        return Scale{1 / scale, scale, zero_point != zero_point ? nan_as_integer : zero_point};
      });
    default:
      return fill(chunk, [=](float, float largest) {
        const float scale = at_least(largest / ((most - least) / 2), smallest_normal);
        return Scale{1 / scale, scale, 0};
      });
  }
}

// float8_e4m3 scales, which begin at that format's smallest normal value.
float float8_scale(float ratio) { return round_one<Format::float8_e4m3>(at_most(at_least(ratio, 0.015625F), 448.0F)); }

void find_float_scales(ScaleChunk& chunk, const NumberFormat& format, float tensor) {
  const Grid grid = grid_of(format.element);
  const std::int32_t top = exponent_of(grid.largest);
  const bool has_nan_code = code_bits(format.element) == 8;
  constexpr float divided_at_least = 1 / smallest_normal;
  switch (format.rule) {
    case Rule::absmax:
      return fill(chunk, [=](float, float largest) {
        const float scale = largest / grid.largest;
        const bool makes_nan = (scale == 0 && !has_nan_code) || scale == infinity;  // of an element without a code
        return Scale{scale, makes_nan ? not_a_number : scale, 0};
      });
    case Rule::scaled:
      return fill(chunk, [=](float, float largest) {
        const float scale = largest == 0 ? 1 : largest / grid.largest;
        return Scale{scale, scale, 0};
      });
    case Rule::po2:
      return fill(chunk, [=](float, float largest) { return po2_scale(largest, exponent_value(top)); });
    case Rule::floor:
      return fill(chunk, [=](float, float largest) {
        return e8m0_scale(exponent_of(largest) - top, largest, divided_at_least);
      });
    case Rule::ceil:
      return fill(chunk, [=](float, float largest) {
        const std::int32_t more = (bits_of(largest) & 0x7FFFFFU) != 0 ? 1 : 0;
        return e8m0_scale(exponent_of(largest) + more - top, largest, divided_at_least);
      });
    case Rule::even: {
      const std::uint32_t half_step = 1U << (22 - grid.mantissa_bits);
      return fill(chunk, [=](float, float largest) {
        const float rounded = std::bit_cast<float>(bits_of(largest) + half_step);
        return e8m0_scale(exponent_of(rounded) - top, largest, divided_at_least);
      });
    }
    case Rule::rceil:
      return fill(chunk,
                  [=](float, float largest) { return e8m0_scale(ceil_log2(largest / grid.largest), largest, 1); });
    case Rule::one_level:
      return fill(chunk, [=](float, float largest) {
        const float scale = float8_scale(largest / grid.largest);
        return Scale{1 / scale, scale, 0};
      });
    default: {  // two_level
      const float outer = two_level_scale(tensor, format.element), inverse = 1 / outer;
      return fill(chunk, [=](float, float largest) {
        const float inner = float8_scale((largest / grid.largest) / outer);
        return Scale{inverse / inner, inverse < infinity ? outer * inner : not_a_number, 0};
      });
    }
  }
}

// `tensor` is the largest magnitude of the tensor.
void find_scales(ScaleChunk& chunk, const NumberFormat& format, float tensor) {
  if (format.granularity == Granularity::none) return fill(chunk, [](float, float) { return Scale{}; });
  if (is_integer(format.element)) return find_integer_scales(chunk, format);
  find_float_scales(chunk, format, tensor);
}

}  // namespace
}  // namespace pi0::formats
