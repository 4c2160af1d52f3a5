// Attention, softmax(QKᵀ)V: the only one in the model. A hook may replace it.
#pragma once

#include "model/build_context.h"
#include "model/kv_cache.h"
#include "model/matmul_site.h"
#include "model/vector_site.h"

namespace pi0::model {

enum class AttentionForm {
  eager,  // each operation by itself, with a mask: Gemma
  fused   // one scaled_dot_product_attention: SigLIP
};

struct AttentionOperands {
  AttentionForm form;
  Tensor query;           // [B, H, L, D], after rotary embedding
  const LayerKv* prefix;  // KV cache of the P prefix positions; null: no prefix
  Tensor key;             // [B, KV heads, L, D], after rotary embedding
  Tensor value;           // as key
  Tensor mask;            // [B, 1, L, P + L] float32, added to the scores; undefined for SigLIP
  double scale;
  VectorHook* softmax = nullptr;  // that the softmax must run through; null: none
};

// Replaces the matmuls of one attention. One instance per attention; calls never overlap.
class AttentionHook : public SiteHook {
 public:
  virtual Tensor attention(const AttentionOperands& operands) = 0;  // [B, H, L, D], dtype of the query
};

// The keys and values of all positions, [B, KV heads, P + L, D]: those of the prefix first.
LayerKv all_keys_and_values(const AttentionOperands& operands);

// Of QKᵀ and of the product with V. A multiplication and an addition count as two.
std::int64_t attention_flop(const AttentionOperands& operands);

// Registered as "sdpa" in its self_attn module.
class Attention : public HookedSite<AttentionHook> {
 public:
  Attention(const BuildContext& context, std::int64_t head_dim);
  Tensor operator()(const AttentionOperands& operands) const;  // [B, H, L, D]
};

}  // namespace pi0::model
