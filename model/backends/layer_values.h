// Element-wise arithmetic of layers, shared by the CPU's loops and the CUDA kernels, which may call constexpr
// functions. Both are compiled without fused multiply-add of separate products and sums, so they differ only in the
// last bits of e^x and of quotient(). Included by files that are compiled for one instruction set each.
#pragma once

#include <bit>
#include <cstdint>

#include "quant/formats/bfloat16.h"

namespace pi0::model {
namespace {

// e^x for |x| <= 87, within two units in the last place: Cephes' range reduction to |r| <= ln2 / 2, and a
// polynomial.
constexpr float exp_within(float x) {
  const float shifted = x * 1.44269504F + 12582912.0F;  // 1.5 · 2^23 rounds it to an integer in the low bits
  const float n = shifted - 12582912.0F;
  const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  const float value = p * r * r + r + 1.0F;
  const std::uint32_t power = (std::bit_cast<std::uint32_t>(shifted) + 127U) << 23;
  return value * std::bit_cast<float>(power);
}

constexpr float exp_negative(float x) {  // x <= 0; 0 below -87
#ifdef __CUDA_ARCH__                     // a GPU's instruction, as accurate
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * 1.44269504F));
  return power;
#else
  const float value = exp_within(x < -87.0F ? -87.0F : x);
  return x < -87.0F ? 0.0F : value;
#endif
}

constexpr float quotient(float a, float b) {  // b in 1 to 2: within two units in the last place
#ifdef __CUDA_ARCH__
  return __fdividef(a, b);
#else
  return a / b;
#endif
}

struct AsFloat {
  static constexpr float load(const void* values, std::int64_t i) { return static_cast<const float*>(values)[i]; }
  static constexpr void store(void* values, std::int64_t i, float value) { static_cast<float*>(values)[i] = value; }
  static constexpr float rounded(float value) { return value; }
};

struct AsBfloat16 {
  static constexpr float load(const void* values, std::int64_t i) {
    return formats::float_of_bfloat16(static_cast<const std::uint16_t*>(values)[i]);
  }
  static constexpr void store(void* values, std::int64_t i, float value) {
    static_cast<std::uint16_t*>(values)[i] = formats::bfloat16_of(value);
  }
  static constexpr float rounded(float value) { return formats::rounded_to_bfloat16(value); }
};

// GELU, tanh approximation: x · (1 + tanh(u)) / 2 in LibTorch's order, where
// |tanh(u)| = (1 - e) / (1 + e) with e = exp(-2|u|).
constexpr float gelu_of(float x) {
  const float u = 0.79788456080286535588F * (x + 0.044715F * (x * x * x));
  const std::uint32_t sign = std::bit_cast<std::uint32_t>(u) & 0x80000000U;
  const float magnitude = std::bit_cast<float>(std::bit_cast<std::uint32_t>(u) ^ sign);
  const float e = exp_negative(-2.0F * magnitude);
  const float tanh = quotient(1.0F - e, 1.0F + e);
  return 0.5F * x * (1.0F + std::bit_cast<float>(std::bit_cast<std::uint32_t>(tanh) | sign));
}

}  // namespace
}  // namespace pi0::model
