// Linears whose sums are accumulated in order (quant/formats/accumulator.h): the reference, and what every backend
// needs for them.
#pragma once

#include <ATen/ATen.h>

#include "quant/formats/accumulator.h"

namespace pi0::model {

// The operands of ipt and systolic: values of any shape and floating dtype, encoded, in bfloat16, which holds them.
at::Tensor encode_operands(const at::Tensor& values);

// x Wᵀ + b, float32 [..., Out]: a plain loop for every sum. x float32 [..., In], weight float32 [Out, In], bias float32
// [Out] or undefined, on the CPU. ipt and systolic encode all three and begin with the bias; the others add it in
// float32 at the end. float32 is at::linear. Throws c10::Error for other dtypes and shapes.
at::Tensor ordered_linear(const formats::Accumulator& accumulator, const at::Tensor& x, const at::Tensor& weight,
                          const at::Tensor& bias);

}  // namespace pi0::model
