// Widens codes without special instructions, for the portable and AVX2 kernels. Those of AVX-512 must equal it.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "model/backends/cpu/gemm_kernels.h"
#include "quant/formats/bfloat16.h"
#include "quant/formats/code_values.h"

namespace pi0::model {
namespace {

inline float float_of_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  const std::uint32_t magnitude = half & 0x7FFFU;
  // Shifted into place, the exponent lacks the difference of the biases, 112. A subtraction normalises subnormals.
  const float scaled = std::bit_cast<float>((magnitude << 13) + (112U << 23));
  const float subnormal = scaled - std::bit_cast<float>(112U << 23);
  std::uint32_t bits = std::bit_cast<std::uint32_t>(scaled);
  if (magnitude < 0x0400U) bits = std::bit_cast<std::uint32_t>(subnormal * 2.0F);
  if (magnitude >= 0x7C00U) bits = (magnitude << 13) + (224U << 23);
  return std::bit_cast<float>(bits | sign);
}

template <Format format>
inline float decode(const void* codes, std::int64_t at) {
  if constexpr (format == Format::float32) {
    return static_cast<const float*>(codes)[at];
  } else if constexpr (format == Format::float16) {
    return float_of_half(static_cast<const std::uint16_t*>(codes)[at]);
  } else if constexpr (format == Format::bfloat16) {
    return formats::float_of_bfloat16(static_cast<const std::uint16_t*>(codes)[at]);
  } else {
    return formats::code_values<format>[static_cast<const std::uint8_t*>(codes)[at]];
  }
}

template <Format format>
void widen_codes(const void* codes, std::int64_t pairs, std::uint32_t* lanes) {
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    std::uint32_t* first = lanes + 2 * pair * panel_width;
    for (std::int64_t column = 0; column < panel_width; ++column) {
      const std::int64_t at = 2 * (pair * panel_width + column);
      first[column] = std::bit_cast<std::uint32_t>(decode<format>(codes, at));
      first[panel_width + column] = std::bit_cast<std::uint32_t>(decode<format>(codes, at + 1));
    }
  }
}

void widen(const void* codes, Format format, Lane, std::int64_t pairs, std::uint32_t* lanes) {
  formats::with_format(format, [&](auto known) { widen_codes<known()>(codes, pairs, lanes); });
}

}  // namespace
}  // namespace pi0::model
