// What one run of the model over one observation gives.
#pragma once

#include <ATen/ATen.h>

namespace pi0::tools {

struct ActionSample {
  at::Tensor raw;       // [B, A, N] float32, as the model gives it
  at::Tensor velocity;  // [steps, B, A, N] float32
  at::Tensor answer;    // [B, A, D] float64, as a client gets it; undefined if `raw` is not finite
};

}  // namespace pi0::tools
