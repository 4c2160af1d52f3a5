// Attention as products and a softmax of their own, for hooks that compute one of them in another way.
// Reference: modeling_gemma.py eager_attention_forward; SigLIP's scaled_dot_product_attention keeps scores in float32.
#pragma once

#include <functional>

#include "model/attention.h"

namespace pi0::model {

// x Wᵀ of float32 matrices [rows, K] and [columns, K].
using AttentionProduct = std::function<Tensor(const Tensor& x, const Tensor& weight)>;

// softmax(QKᵀ + mask)V, [B, H, L, D] of the query's dtype. `product` computes both products of each sample and KV head,
// with the rows of all query heads that share it.
Tensor attention_by_parts(const AttentionOperands& operands, const AttentionProduct& product);

}  // namespace pi0::model
