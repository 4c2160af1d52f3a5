#include "model/attention.h"

#include "model/backend.h"

namespace pi0::model {

LayerKv all_keys_and_values(const AttentionOperands& in) {
  if (in.prefix == nullptr) return {in.key, in.value};
  return {at::cat({in.prefix->key, in.key}, 2), at::cat({in.prefix->value, in.value}, 2)};
}

std::int64_t attention_flop(const AttentionOperands& in) {
  const std::int64_t keys = in.key.size(2) + (in.prefix != nullptr ? in.prefix->key.size(2) : 0);
  return 2 * (2 * in.query.numel() * keys);  // two products
}

Attention::Attention(const BuildContext& context, std::int64_t head_dim)
    : HookedSite(context.path, SiteKind::attention, head_dim, head_dim, context.backend) {}

Tensor Attention::operator()(const AttentionOperands& operands) const {
  flop += attention_flop(operands);
  return hook() != nullptr ? hook()->attention(operands) : backend.attention(operands);
}

}  // namespace pi0::model
