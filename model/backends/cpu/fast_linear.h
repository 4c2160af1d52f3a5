// Unquantized linears with the fast kernels of a CPU.
#pragma once

#include <vector>

#include "model/backends/cpu/gemm.h"

namespace pi0::model {

struct FastLinear {
  PackedWeight weight;   // [Out, In]
  at::Tensor bias = {};  // [Out]; undefined: none
};

// x Wᵀ + b of each linear, [..., Out] of x's dtype, float32 or bfloat16. x [..., In] is packed once.
std::vector<at::Tensor> fast_linears(const GemmKernels& kernels, const at::Tensor& x,
                                     const std::vector<FastLinear>& linears);

at::Tensor fast_linear(const GemmKernels& kernels, const at::Tensor& x, const FastLinear& linear);

// GELU (tanh approximation) of the first linear's result, times the second's, both of the same Out. Rounds to bfloat16
// where fast_linears() and fast_gelu() do, to the same bits. Rows of the result lie as padded_result() makes them.
at::Tensor fast_gated_linears(const GemmKernels& kernels, const at::Tensor& x, const FastLinear& gate,
                              const FastLinear& up);

}  // namespace pi0::model
