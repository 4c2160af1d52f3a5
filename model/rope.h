// Rotary position embedding. Reference: modeling_gemma.py GemmaRotaryEmbedding, apply_rotary_pos_emb.
#pragma once

#include "model/weight_source.h"

namespace pi0::model {

using at::Tensor;

struct RotaryAngles {
  Tensor cos;  // [B, 1, L, D]
  Tensor sin;  // [B, 1, L, D]
};

class RotaryEmbedding {
 public:
  // Under bfloat16 the inverse frequencies are rounded to it, as openpi's cast of all buffers does.
  RotaryEmbedding(std::int64_t head_dim, Precision precision, at::Device device);

  // positions [B, L] integer; the angles' cosines and sines are computed in float32 and cast.
  RotaryAngles angles(const Tensor& positions, at::ScalarType dtype) const;

 private:
  Tensor inverse_frequencies_;  // [D / 2] float32
};

// Applies the rotary embedding to queries or keys [B, H, L, D].
Tensor rotate(const Tensor& x, const RotaryAngles& angles);

}  // namespace pi0::model
