// Softmax, RMS norm, GELU and rotary embedding, a row at a time. Values are float32, or bfloat16 if `in_bfloat16`;
// these are computed in float32 and rounded where the reference rounds.
#pragma once

#include <cstdint>

namespace pi0::model {

struct LayerKernels {
  // One row of attention's softmax(scores · scale + mask), in place. Keys lie in `panels` panels of 32, `panel_stride`
  // floats apart; `mask` [panels · 32] is minus infinity for the padding of panels. `in_bfloat16` rounds the scores,
  // and again after scaling.
  void (*softmax)(float* scores, std::int64_t panel_stride, std::int64_t panels, const float* mask, float scale,
                  bool in_bfloat16);

  // x / sqrt(mean(x²) + epsilon) · scale + shift, [width]; `shift` may be null.
  void (*rms_norm)(const void* x, const float* scale, const float* shift, void* out, std::int64_t width, float epsilon,
                   bool in_bfloat16);

  // GELU (tanh approximation) of `count` values, times `factor` [count] unless that is null.
  void (*gelu)(const void* x, const void* factor, void* out, std::int64_t count, bool in_bfloat16);

  // One head [size] rotated by its position's angles, whose cosines and sines are [size].
  void (*rotate)(const void* x, const void* cos, const void* sin, void* out, std::int64_t size, bool in_bfloat16);
};

}  // namespace pi0::model
