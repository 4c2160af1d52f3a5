// One value between bfloat16 and float. Included by files that are compiled for one instruction set each, and by
// CUDA's, which call whatever is constexpr.
#pragma once

#include <bit>
#include <cstdint>

namespace pi0::model {
namespace {

constexpr float float_of_bfloat16(std::uint16_t half) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16);
}

// To the nearest, ties to even; NaN stays NaN.
constexpr std::uint16_t bfloat16_of(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800  // one instruction there, with the same result
  std::uint16_t half;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
#else
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const bool is_nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
  return static_cast<std::uint16_t>(is_nan ? (bits >> 16) | 0x40U : rounded);
#endif
}

}  // namespace
}  // namespace pi0::model
