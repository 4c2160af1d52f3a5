// The fast softmax(QKᵀ)V of Gemma: scores of a block of rows stay in cache. The reference's function,
// roundings to bfloat16 included, but for the order of sums and the last bits of exp.
#pragma once

#include "model/backends/cpu/gemm.h"

namespace pi0::model {

struct AttentionOperands;

// AttentionForm::eager on a CPU; packs the prefix once and keeps that with it. Result [B, H, L, D] with the strides of
// [B, L, H, D], dtype of the query.
at::Tensor fast_attention(const GemmKernels& kernels, const AttentionOperands& operands);

}  // namespace pi0::model
