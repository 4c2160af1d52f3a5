// What lies between the matmuls in one pass over memory: the reference's functions, roundings to
// bfloat16 included, but for the order of a norm's sum and the last bits of GELU. On a CPU; tensors are
// float32 or bfloat16.
#pragma once

#include <ATen/ATen.h>

#include "model/backends/cpu/gemm_kernels.h"

namespace pi0::model {

// x [B, L, W]; scale, and shift unless undefined, float32 of W values for all samples or for
// each, contiguous. Result of x's shape and dtype.
at::Tensor fast_rms_norm(const GemmKernels& kernels, const at::Tensor& x, const at::Tensor& scale,
                         const at::Tensor& shift, double epsilon);

// GELU (tanh) of x, times `factor` of the same shape and dtype unless that is undefined.
at::Tensor fast_gelu(const GemmKernels& kernels, const at::Tensor& x, const at::Tensor& factor);

// Heads x [B, H, L, D] of any strides rotated by cos and sin [B, 1, L, D] of the same dtype; the result is
// contiguous.
at::Tensor fast_rotate(const GemmKernels& kernels, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace pi0::model
