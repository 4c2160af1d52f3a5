// Sine-cosine embedding of the flow time. Reference: pi0_pytorch.py create_sinusoidal_pos_embedding.
#pragma once

#include <ATen/ATen.h>

namespace pi0::model {

// time [B] float32 in [0, 1] to [B, width] float32; computed in float64.
at::Tensor time_embedding(const at::Tensor& time, std::int64_t width);

}  // namespace pi0::model
