// The model's only softmax(QKᵀ)V, with one hook slot.
#pragma once

#include <memory>
#include <string>

#include "model/build_context.h"
#include "model/kernels/fast_attention.h"

namespace pi0::model {

// References: modeling_gemma.py eager_attention_forward; transformers' sdpa_attention_forward.
// Scores have the operands' dtype; mask and softmax are float32. [B, H, L, D].
Tensor plain_attention(const AttentionOperands& operands);

// Multiplications and additions of both its products.
std::int64_t attention_flop(const AttentionOperands& operands);

class Attention {
 public:
  // `path` is the self_attn module's; its site is entered as `path`.sdpa.
  Attention(BuildContext& context, const std::string& path, std::int64_t head_dim);
  Tensor operator()(AttentionOperands operands) const;  // [B, H, L, D]
  bool is_observed() const { return site_->is_observed(); }

 private:
  MatmulSite* site_;
  std::unique_ptr<PrefixPack> prefix_pack_;
};

}  // namespace pi0::model
