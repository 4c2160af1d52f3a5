// Softmax, RMS norm, GELU and rotary embedding, a row at a time. Values are float32, or bfloat16 if `in_bfloat16`;
// these are computed in float32 and rounded where the reference rounds.
#pragma once

#include <cstdint>

namespace pi0::model {

// One row of attention's scores, which is overwritten. Keys lie in `panels` panels of 32.
struct ScoreRow {
  float* scores;
  std::int64_t panel_stride;  // floats from panel to panel
  std::int64_t panels;
  const float* mask;  // [panels · 32], minus infinity for the padding of panels
  float scale;
};

// What attention's weights are rounded to, and stored as.
enum class WeightForm { float32, bfloat16_as_float32, bfloat16 };

struct LayerKernels {
  // softmax(scores · scale + mask) to weights [panels · 32]. If these are rounded, so are the scores, before and after
  // they are scaled.
  void (*softmax)(const ScoreRow& row, WeightForm form, void* weights);

  // The same before it is divided by its sum, which is returned. Only the weights are rounded, after they were summed.
  float (*exponentials)(const ScoreRow& row, WeightForm form, void* weights);

  // x / sqrt(mean(x²) + epsilon) · scale + shift, [width]; `shift` may be null.
  void (*rms_norm)(const void* x, const float* scale, const float* shift, void* out, std::int64_t width, float epsilon,
                   bool in_bfloat16);

  // GELU (tanh approximation) of `count` values, times `factor` [count] unless that is null.
  void (*gelu)(const void* x, const void* factor, void* out, std::int64_t count, bool in_bfloat16);

  // GELU of `count` sums, times `factor` [count], in place; both are rounded to bfloat16 before, and GELU after, if
  // `in_bfloat16`.
  void (*gelu_of_sums)(float* sums, const float* factor, std::int64_t count, bool in_bfloat16);

  // One head [size] rotated by its position's angles, whose cosines and sines are [size].
  void (*rotate)(const void* x, const void* cos, const void* sin, void* out, std::int64_t size, bool in_bfloat16);
};

}  // namespace pi0::model
