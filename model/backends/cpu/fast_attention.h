// Attention with fast CPU kernels: the scores of a block of rows stay in cache. Rounds to bfloat16 where the reference
// does (modeling_gemma.py eager_attention_forward, or LibTorch's cpu_flash_attention); differs in the order of sums and
// the last bits of exp.
#pragma once

#include "model/backends/cpu/gemm.h"

namespace pi0::model {

struct AttentionOperands;

// Without a softmax hook. Packs the prefix once and caches that in it. The result [B, H, L, D] has the strides of
// [B, L, H, D] and the query's dtype.
at::Tensor fast_attention(const GemmKernels& kernels, const AttentionOperands& operands);

}  // namespace pi0::model
