// Rounding of a single value to a format's grid, and its code. Included by files that are compiled for one instruction
// set each, and by CUDA files, which call the constexpr functions. Everything is in an unnamed namespace, so that the
// linker does not take one instruction set's function for another's.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "quant/formats/bfloat16.h"
#include "quant/formats/format.h"

namespace pi0::formats {
namespace {

constexpr std::uint32_t infinity_bits = 0x7F800000U;

constexpr std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }

// Compares magnitudes. They have no sign bit, so that signed integers do, which even SSE2 compares as vectors.
constexpr bool above(std::uint32_t a, std::uint32_t b) {
  return static_cast<std::int32_t>(a) > static_cast<std::int32_t>(b);
}

// All bits set for NaN, none otherwise. Arithmetic, because GCC compiles repeated comparisons to branches.
constexpr std::uint32_t nan_mask(std::uint32_t magnitude) {
  return static_cast<std::uint32_t>(static_cast<std::int32_t>(infinity_bits - magnitude) >> 31);
}

// One value. Adding a power of two whose last bit is worth the grid's step at the value, and taking it
// away again, rounds as the hardware does: to nearest, ties to even. A scaled value saturates on every grid.
template <Format format, Overflow overflow = grid_of(format).overflow>
constexpr float round_one(float value) {
  constexpr Grid grid = grid_of(format);
  if constexpr (format == Format::bfloat16) {
    return rounded_to_bfloat16(value);
  } else {
    static_assert(grid.min_exponent > -126);  // so that the power is a normal number
    constexpr std::uint32_t dropped_bits = 23 - grid.mantissa_bits;
    const std::uint32_t sign = bits_of(value) & 0x80000000U;
    const std::uint32_t magnitude = bits_of(value) ^ sign;
    // Beyond the grid all values are alike, and a sum with the power must not overflow.
    constexpr float after_largest = 2 * first_beyond(format) - grid.largest;
    constexpr std::uint32_t top = bits_of(overflow == Overflow::saturate ? grid.largest : after_largest);
    const std::uint32_t within = above(magnitude, top) ? top : magnitude;
    constexpr auto smallest_normal = static_cast<std::uint32_t>(127 + grid.min_exponent) << 23;
    const std::uint32_t own_exponent = within & infinity_bits;
    const std::uint32_t exponent = above(own_exponent, smallest_normal) ? own_exponent : smallest_normal;
    const float power = std::bit_cast<float>(exponent + (dropped_bits << 23));
    std::uint32_t rounded = bits_of((std::bit_cast<float>(within) + power) - power);
    if constexpr (overflow == Overflow::infinity) {
      rounded = rounded == top ? infinity_bits : rounded;
    }
    rounded = (magnitude & nan_mask(magnitude)) | (rounded & ~nan_mask(magnitude));
    return std::bit_cast<float>(rounded | sign);
  }
}

// The scale that all groups of a tensor share under two_level, from the tensor's largest magnitude.
constexpr float two_level_scale(float magnitude, Format element) {
  return magnitude / (grid_of(Format::float8_e4m3).largest * grid_of(element).largest);
}

// The type of a code; a float32 value is its own code.
template <Format format>
using CodeOf = std::conditional_t<format == Format::float32, float,
                                  std::conditional_t<code_bits(format) == 16, std::uint16_t, std::uint8_t>>;

// The code of a value on the grid: sign, exponent and mantissa, each shifted to its place.
template <Format format>
constexpr std::uint32_t code_of(float value) {
  constexpr Grid grid = grid_of(format);
  constexpr int dropped_bits = 23 - grid.mantissa_bits;
  constexpr int bits_of_code = code_bits(format);
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 31) << (bits_of_code - 1);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  constexpr std::uint32_t rebias = static_cast<std::uint32_t>(126 + grid.min_exponent) << grid.mantissa_bits;
  std::uint32_t code = (magnitude >> dropped_bits) - rebias;
  if constexpr (grid.min_exponent > -126) {
    constexpr auto smallest_normal = static_cast<std::uint32_t>(127 + grid.min_exponent) << 23;
    // Added to this power of two, a subnormal's steps are the sum's last bits.
    constexpr auto magic_bits = static_cast<std::uint32_t>(127 + grid.min_exponent + dropped_bits) << 23;
    const float shifted = std::bit_cast<float>(magnitude) + std::bit_cast<float>(magic_bits);
    const std::uint32_t steps = std::bit_cast<std::uint32_t>(shifted) - magic_bits;
    code = above(smallest_normal, magnitude) ? steps : code;
  }
  constexpr std::uint32_t code_of_largest = (std::bit_cast<std::uint32_t>(grid.largest) >> dropped_bits) - rebias;
  if constexpr (grid.overflow == Overflow::infinity) {
    code = magnitude == infinity_bits ? code_of_largest + 1 : code;
  }
  constexpr std::uint32_t nan_code = (1U << (bits_of_code - 1)) - 1;
  code = (nan_code & nan_mask(magnitude)) | (code & ~nan_mask(magnitude));
  return code | sign;
}

// Whether a GPU converts with an instruction of its own. That of bfloat16 is in bfloat16.h.
#ifndef __CUDA_ARCH__
template <Format format>
constexpr bool has_conversion = false;
#elif __CUDA_ARCH__ >= 890
template <Format format>
constexpr bool has_conversion =
    format == Format::float16 || format == Format::float8_e4m3 || format == Format::float8_e5m2;
#else
template <Format format>
constexpr bool has_conversion = format == Format::float16;
#endif

#ifdef __CUDA_ARCH__
// round_one() by a GPU's own conversions, an instruction or two each. Those to eight bits saturate: a value that e5m2
// takes to infinity is left to round_one().
template <Format format>
constexpr float converted(float value) {
  std::uint16_t half = 0;
  if constexpr (format == Format::float16) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  } else {
    constexpr std::uint32_t beyond = bits_of(first_beyond(format)) << 1;
    if (format == Format::float8_e5m2 && !(bits_of(value) << 1 < beyond)) {
      return round_one<format>(value);
    }
#if __CUDA_ARCH__ >= 890
    std::uint16_t codes;
    std::uint32_t halves;
    if constexpr (format == Format::float8_e4m3) {
      asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(0.0F), "f"(value));
      asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(codes));
    } else {
      static_assert(format == Format::float8_e5m2);
      asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(0.0F), "f"(value));
      asm("cvt.rn.f16x2.e5m2x2 %0, %1;" : "=r"(halves) : "h"(codes));
    }
    half = static_cast<std::uint16_t>(halves);
#endif
  }
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(half));
  return result;
}
#endif

template <Format format>
constexpr float rounded_to(float value) {
  if constexpr (format == Format::float32) {
    return value;
  } else {
#ifdef __CUDA_ARCH__
    if constexpr (has_conversion<format>) return converted<format>(value);
#endif
    return round_one<format>(value);
  }
}

}  // namespace
}  // namespace pi0::formats
