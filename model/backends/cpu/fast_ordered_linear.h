// Linears over plain tensors whose sums are accumulated in order.
#pragma once

#include <ATen/ATen.h>

#include "model/backends/cpu/gemm.h"

namespace pi0::model {

// A weight [Out, In] of any floating dtype as the encoded operands of ipt and systolic: in 8 bits unless one of them is
// 480, which float8_e4m3 does not have.
PackedWeight pack_encoded_weight(const at::Tensor& weight);

// ordered_linear (model/ordered_linear.h) with the fast kernels: equal in all bits, but for float32, of which only the
// order of sums differs. Packs the weight at every call.
at::Tensor fast_ordered_linear(const GemmKernels& kernels, const formats::Accumulator& accumulator, const at::Tensor& x,
                               const at::Tensor& weight, const at::Tensor& bias);

}  // namespace pi0::model
