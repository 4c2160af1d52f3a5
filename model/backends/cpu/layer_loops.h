// The loops of LayerKernels. Included by one file per instruction set.
#pragma once

#include <cmath>
#include <cstdint>

#include "model/backends/cpu/gemm_kernels.h"
#include "model/backends/layer_values.h"

namespace pi0::model {
namespace {

struct AsRoundedFloat : AsFloat {
  static constexpr void store(void* values, std::int64_t i, float value) {
    AsFloat::store(values, i, AsBfloat16::rounded(value));
  }
};

// Sums whose store to bfloat16 is still to come.
struct AsSumOfBfloat16 : AsFloat {
  static constexpr float load(const void* values, std::int64_t i) {
    return AsBfloat16::rounded(AsFloat::load(values, i));
  }
  static constexpr float rounded(float value) { return AsBfloat16::rounded(value); }
};

// Combines all lanes, which are overwritten: the halves, then their halves.
template <class Combine>
float fold(float (&lanes)[panel_width], const Combine& combine) {
  for (std::int64_t width = panel_width / 2; width > 0; width /= 2) {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < width; ++i) lanes[i] = combine(lanes[i], lanes[width + i]);
  }
  return lanes[0];
}

// Scales and masks the scores; returns the largest.
template <class Dtype>
float mask_scores(const ScoreRow& in) {
  float largest[panel_width];
  for (float& value : largest) value = -3.4e38F;
  for (std::int64_t panel = 0; panel < in.panels; ++panel) {
    float* const row = in.scores + panel * in.panel_stride;
    const float* const terms = in.mask + panel * panel_width;
#pragma GCC ivdep
    for (std::int64_t i = 0; i < panel_width; ++i) {
      const float score = Dtype::rounded(Dtype::rounded(row[i]) * in.scale) + terms[i];
      row[i] = score;
      largest[i] = largest[i] > score ? largest[i] : score;
    }
  }
  return fold(largest, [](float a, float b) { return a > b ? a : b; });
}

// Stores e^(score - most) of all scores in panels `stride` values apart, which may be the scores, and sums it.
template <class Weight>
void raise_scores(const ScoreRow& in, float most, void* to, std::int64_t stride, float (&result)[panel_width]) {
  float sums[panel_width] = {};  // in registers: what is stored cannot change them, as it might change `result`
  for (std::int64_t panel = 0; panel < in.panels; ++panel) {
    const float* const row = in.scores + panel * in.panel_stride;
#pragma GCC ivdep
    for (std::int64_t i = 0; i < panel_width; ++i) {
      const float value = exp_negative(row[i] - most);
      Weight::store(to, panel * stride + i, value);
      sums[i] += value;
    }
  }
  for (std::int64_t i = 0; i < panel_width; ++i) result[i] = sums[i];
}

// Rounds as modeling_gemma.py eager_attention_forward: scores and scaled scores in the model's dtype, then float32.
template <class Dtype, class Weight>
void softmax_row(const ScoreRow& in, void* weights) {
  float sums[panel_width];
  raise_scores<AsFloat>(in, mask_scores<Dtype>(in), in.scores, in.panel_stride, sums);
  float sum = 0.0F;
  for (const float value : sums) sum += value;
  for (std::int64_t panel = 0; panel < in.panels; ++panel) {
    const float* const row = in.scores + panel * in.panel_stride;
#pragma GCC ivdep
    for (std::int64_t i = 0; i < panel_width; ++i) Weight::store(weights, panel * panel_width + i, row[i] / sum);
  }
}

// Rounds as LibTorch's FlashAttentionKernel.cpp cpu_flash_attention.
template <class Weight>
float exponentials_row(const ScoreRow& in, void* weights) {
  float sums[panel_width];
  raise_scores<Weight>(in, mask_scores<AsFloat>(in), weights, panel_width, sums);
  return fold(sums, [](float a, float b) { return a + b; });
}

// In the order of LibTorch's sum, so that a norm in bfloat16 has the reference's bits: one that rounds differently
// changes all later layers. Sums 16 rows of 32 lanes at a time, then adds four lanes to one, then the rest.
template <class Dtype>
float sum_of_squares(const void* x, std::int64_t width) {
  constexpr std::int64_t lanes = 32, vector = 8, rows_at_once = 16;
  float sums[lanes] = {};
  std::int64_t i = 0;
  while (i + lanes <= width) {
    float some[lanes] = {};
    for (std::int64_t row = 0; row < rows_at_once && i + lanes <= width; ++row, i += lanes) {
      for (std::int64_t lane = 0; lane < lanes; ++lane) {
        const float value = Dtype::load(x, i + lane);
        some[lane] += value * value;
      }
    }
    for (std::int64_t lane = 0; lane < lanes; ++lane) sums[lane] += some[lane];
  }
  for (std::int64_t from = vector; from < lanes; from += vector) {
    for (std::int64_t lane = 0; lane < vector; ++lane) sums[lane] += sums[from + lane];
  }
  float sum = 0.0F;
  for (; i < width; ++i) sum += Dtype::load(x, i) * Dtype::load(x, i);
  for (std::int64_t lane = 0; lane < vector; ++lane) sum += sums[lane];
  return sum;
}

template <class Dtype>
void rms_norm_row(const void* x, const float* scale, const float* shift, void* out, std::int64_t width, float epsilon) {
  const float sum = sum_of_squares<Dtype>(x, width);
  const float factor = 1.0F / std::sqrt(sum / static_cast<float>(width) + epsilon);
  if (shift == nullptr) {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < width; ++i) Dtype::store(out, i, Dtype::load(x, i) * factor * scale[i]);
  } else {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < width; ++i) {
      Dtype::store(out, i, Dtype::load(x, i) * factor * scale[i] + shift[i]);
    }
  }
}

template <class Dtype>
void gelu_all(const void* x, const void* factor, void* out, std::int64_t count) {
  if (factor == nullptr) {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < count; ++i) Dtype::store(out, i, gelu_of(Dtype::load(x, i)));
  } else {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < count; ++i) {
      Dtype::store(out, i, Dtype::rounded(gelu_of(Dtype::load(x, i))) * Dtype::load(factor, i));
    }
  }
}

// Both products are rounded, as in modeling_gemma.py apply_rotary_pos_emb, where each is an operation.
template <class Dtype>
void rotate_head(const void* x, const void* cos, const void* sin, void* out, std::int64_t size) {
  const std::int64_t half = size / 2;
#pragma GCC ivdep
  for (std::int64_t i = 0; i < half; ++i) {
    const float first = Dtype::load(x, i), second = Dtype::load(x, half + i);
    Dtype::store(out, i, Dtype::rounded(first * Dtype::load(cos, i)) + Dtype::rounded(-second * Dtype::load(sin, i)));
    Dtype::store(
        out, half + i,
        Dtype::rounded(second * Dtype::load(cos, half + i)) + Dtype::rounded(first * Dtype::load(sin, half + i)));
  }
}

constexpr LayerKernels layer_kernels = {
    [](const ScoreRow& row, WeightForm form, void* weights) {
      (form == WeightForm::float32               ? softmax_row<AsFloat, AsFloat>
       : form == WeightForm::bfloat16_as_float32 ? softmax_row<AsBfloat16, AsRoundedFloat>
                                                 : softmax_row<AsBfloat16, AsBfloat16>)(row, weights);
    },
    [](const ScoreRow& row, WeightForm form, void* weights) {
      return (form == WeightForm::float32               ? exponentials_row<AsFloat>
              : form == WeightForm::bfloat16_as_float32 ? exponentials_row<AsRoundedFloat>
                                                        : exponentials_row<AsBfloat16>)(row, weights);
    },
    [](const void* x, const float* scale, const float* shift, void* out, std::int64_t width, float epsilon,
       bool in_bfloat16) {
      (in_bfloat16 ? rms_norm_row<AsBfloat16> : rms_norm_row<AsFloat>)(x, scale, shift, out, width, epsilon);
    },
    [](const void* x, const void* factor, void* out, std::int64_t count, bool in_bfloat16) {
      (in_bfloat16 ? gelu_all<AsBfloat16> : gelu_all<AsFloat>)(x, factor, out, count);
    },
    [](float* sums, const float* factor, std::int64_t count, bool in_bfloat16) {
      (in_bfloat16 ? gelu_all<AsSumOfBfloat16> : gelu_all<AsFloat>)(sums, factor, sums, count);
    },
    [](const void* x, const void* cos, const void* sin, void* out, std::int64_t size, bool in_bfloat16) {
      (in_bfloat16 ? rotate_head<AsBfloat16> : rotate_head<AsFloat>)(x, cos, sin, out, size);
    }};

}  // namespace
}  // namespace pi0::model
