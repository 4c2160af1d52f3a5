#include "model/attention.h"

#include "model/backend.h"

namespace pi0::model {
namespace {

// Shares each key or value head among the query heads of its group: [B, G, S, D] to [B, H, S, D].
Tensor repeat_heads(const Tensor& kv, std::int64_t query_heads) {
  const std::int64_t batch = kv.size(0), groups = kv.size(1), length = kv.size(2), size = kv.size(3);
  if (groups == query_heads) return kv;
  return kv.unsqueeze(2)
      .expand({batch, groups, query_heads / groups, length, size})
      .reshape({batch, query_heads, length, size});
}

Tensor after_prefix(const Tensor& prefix, const Tensor& own) {
  return prefix.defined() ? at::cat({prefix, own}, 2) : own;
}

Tensor eager_attention(const AttentionOperands& in) {
  const Tensor key = repeat_heads(after_prefix(in.prefix_key, in.key), in.query.size(1));
  const Tensor value = repeat_heads(after_prefix(in.prefix_value, in.value), in.query.size(1));
  Tensor weights = at::matmul(in.query, key.transpose(2, 3)) * in.scale;
  if (in.mask.defined()) weights = weights + in.mask;
  weights = at::softmax(weights, -1, at::kFloat).to(in.query.scalar_type());
  return at::matmul(weights, value);
}

}  // namespace

Tensor plain_attention(const AttentionOperands& in) {
  if (in.form == AttentionForm::eager) return eager_attention(in);
  return at::scaled_dot_product_attention(in.query.contiguous(), in.key.contiguous(), in.value.contiguous(),
                                          /*attn_mask=*/{},
                                          /*dropout_p=*/0.0, /*is_causal=*/false, in.scale);
}

Attention::Attention(BuildContext& context, const std::string& path, std::int64_t head_dim)
    : site_(&context.sites.add(path + ".sdpa", SiteKind::attention, head_dim, head_dim)),
      prefix_pack_(std::make_unique<PrefixPack>()) {}

std::int64_t attention_flop(const AttentionOperands& in) {
  const std::int64_t keys = in.key.size(2) + (in.prefix_key.defined() ? in.prefix_key.size(2) : 0);
  return 2 * 2 * in.query.numel() * keys;
}

Tensor Attention::operator()(AttentionOperands operands) const {
  operands.prefix_pack = prefix_pack_.get();
  site_->flop += attention_flop(operands);
  return site_->hook != nullptr ? site_->hook->attention(operands) : site_->backend->attention(operands);
}

}  // namespace pi0::model
