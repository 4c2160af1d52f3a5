// RMS norm, GELU and rotary embedding on a CPU, each in one pass over memory. They round to bfloat16 where the
// reference does; they may differ in the order of a norm's sum and in the last bits of GELU. Tensors are float32 or
// bfloat16.
#pragma once

#include <ATen/ATen.h>

#include "model/backends/cpu/gemm_kernels.h"

namespace pi0::model {

// x [B, L, W]. `scale`, and `shift` unless undefined, are contiguous float32: W values for all samples, or W for each.
// The result has x's shape and dtype, with rows as padded_result() makes them.
at::Tensor fast_rms_norm(const GemmKernels& kernels, const at::Tensor& x, const at::Tensor& scale,
                         const at::Tensor& shift, double epsilon);

// GELU (tanh approximation) of x, times `factor` of the same shape and dtype unless that is undefined.
at::Tensor fast_gelu(const GemmKernels& kernels, const at::Tensor& x, const at::Tensor& factor);

// Applies the rotary embedding to x [B, H, L, D] of any strides; cos and sin [B, 1, L, D] have its dtype. The result is
// contiguous.
at::Tensor fast_rotate(const GemmKernels& kernels, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace pi0::model
