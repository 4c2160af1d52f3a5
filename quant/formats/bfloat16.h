// Conversion of single values between bfloat16 and float32, and the only definition of how bfloat16 rounds. Included by
// files that are compiled for one instruction set each, and by CUDA files, which call the constexpr functions.
#pragma once

#include <bit>
#include <cstdint>

namespace pi0::formats {
namespace {

constexpr float float_of_bfloat16(std::uint16_t half) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16);
}

// The bits of a float32 value, rounded to the nearest bfloat16, ties to even: the lower half is zero. NaN stays NaN.
constexpr std::uint32_t rounded_bfloat16_bits(std::uint32_t bits) {
  const std::uint32_t rounded = bits + 0x7FFFU + ((bits >> 16) & 1U);
  const bool is_nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
  return (is_nan ? bits | 0x400000U : rounded) & 0xFFFF0000U;
}

constexpr std::uint16_t bfloat16_of(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800  // a single instruction with the same result
  std::uint16_t half;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
#else
  return static_cast<std::uint16_t>(rounded_bfloat16_bits(std::bit_cast<std::uint32_t>(value)) >> 16);
#endif
}

constexpr float rounded_to_bfloat16(float value) {
#ifdef __CUDA_ARCH__
  return float_of_bfloat16(bfloat16_of(value));
#else
  return std::bit_cast<float>(rounded_bfloat16_bits(std::bit_cast<std::uint32_t>(value)));
#endif
}

}  // namespace
}  // namespace pi0::formats
