// What lies between the matmuls, a row at a time. Values are float32, or bfloat16 where `in_bfloat16`
// says so; then they are computed in float32 and rounded where the reference rounds.
#pragma once

#include <cstdint>

namespace pi0::model {

struct LayerKernels {
  // Scores of one row of attention to weights that add up to 1, in place: softmax(scores · scale +
  // mask). Keys lie in `panels` panels of 32, `panel_stride` floats apart; `mask` [panels · 32] is minus
  // infinity where there is no key. `in_bfloat16` rounds scores and their product with the scale.
  void (*softmax)(float* scores, std::int64_t panel_stride, std::int64_t panels, const float* mask, float scale,
                  bool in_bfloat16);

  // x / sqrt(mean(x²) + epsilon) · scale + shift, [width]; `shift` may be null.
  void (*rms_norm)(const void* x, const float* scale, const float* shift, void* out, std::int64_t width, float epsilon,
                   bool in_bfloat16);

  // GELU in its tanh form of `count` values, times `factor` [count] unless that is null.
  void (*gelu)(const void* x, const void* factor, void* out, std::int64_t count, bool in_bfloat16);

  // One head [size] rotated by its position's angles, whose cosines and sines are [size].
  void (*rotate)(const void* x, const void* cos, const void* sin, void* out, std::int64_t size, bool in_bfloat16);
};

}  // namespace pi0::model
