// One row of attention scores to weights. Included by one file per instruction set.
#pragma once

#include <bit>
#include <cstdint>

#include "model/kernels/gemm_kernels.h"

namespace pi0::model {
namespace {

inline float as_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7FFFU + ((bits >> 16) & 1U)) & 0xFFFF0000U);
}

// e^x for x at most 0, within two units in the last place; below -87 zero. Cephes' reduction and a
// polynomial of Taylor's form on |r| <= ln2 / 2.
inline float exp_negative(float x) {
  const float clamped = x < -87.0F ? -87.0F : x;
  const float shifted = clamped * 1.44269504F + 12582912.0F;  // rounds to an integer in the last bits
  const float n = shifted - 12582912.0F;
  const float r = (clamped - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  const float value = p * r * r + r + 1.0F;
  const std::uint32_t power = (std::bit_cast<std::uint32_t>(shifted) + 127U) << 23;
  return x < -87.0F ? 0.0F : value * std::bit_cast<float>(power);
}

template <bool in_bfloat16>
void soften_row(float* scores, std::int64_t panel_stride, std::int64_t keys, const float* mask,
                float scale) {
  const std::int64_t panels = (keys + panel_width - 1) / panel_width;
  float largest[panel_width];
  for (float& value : largest) value = -3.4e38F;
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    float* const row = scores + panel * panel_stride;
    const std::int64_t first = panel * panel_width;
    for (std::int64_t i = 0; i < panel_width; ++i) {
      float score = in_bfloat16 ? as_bfloat16(as_bfloat16(row[i]) * scale) : row[i] * scale;
      if (mask != nullptr) score += mask[first + i];
      row[i] = score;
      const float counted = first + i < keys ? score : -3.4e38F;
      largest[i] = largest[i] > counted ? largest[i] : counted;
    }
  }
  float most = largest[0];
  for (const float value : largest) most = most > value ? most : value;
  float sums[panel_width] = {};
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    float* const row = scores + panel * panel_stride;
    const std::int64_t first = panel * panel_width;
    for (std::int64_t i = 0; i < panel_width; ++i) {
      const float value = first + i < keys ? exp_negative(row[i] - most) : 0.0F;
      row[i] = value;
      sums[i] += value;
    }
  }
  float sum = 0.0F;
  for (const float value : sums) sum += value;
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    float* const row = scores + panel * panel_stride;
    for (std::int64_t i = 0; i < panel_width; ++i) row[i] /= sum;
  }
}

void soften(float* scores, std::int64_t panel_stride, std::int64_t keys, const float* mask,
            float scale, bool in_bfloat16) {
  if (in_bfloat16) {
    soften_row<true>(scores, panel_stride, keys, mask, scale);
  } else {
    soften_row<false>(scores, panel_stride, keys, mask, scale);
  }
}

}  // namespace
}  // namespace pi0::model
