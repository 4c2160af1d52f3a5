// Rounding loops over plain memory. The ATen version is the slow oracle that the others must equal.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "quant/format.h"

namespace pi0::quant {

// Rounds `count` values to the nearest of the format's grid, ties to even, and returns the largest
// magnitude among them before rounding (NaN left out). `in` and `out` may not overlap. Runs on the
// calling thread. Throws std::logic_error for float32, which rounds nothing.
float round_on_cpu(const float* in, float* out, std::int64_t count, Format format);

// The same by libtorch's casts, for any device: [...] float32 to [...] float32.
at::Tensor round_by_casts(const at::Tensor& values, Format format);

}  // namespace pi0::quant
