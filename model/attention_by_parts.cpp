#include "model/attention_by_parts.h"

#include <span>
#include <vector>

namespace pi0::model {
namespace {

// Batched x Wᵀ: [B, G, rows, K] and [B, G, columns, K] to [B, G, rows, columns] float32.
Tensor products(const Tensor& x, const Tensor& weight, const AttentionProduct& product) {
  std::vector<Tensor> all;
  for (std::int64_t sample = 0; sample < x.size(0); ++sample) {
    for (std::int64_t group = 0; group < x.size(1); ++group) {
      all.push_back(
          product(x[sample][group].to(at::kFloat).contiguous(), weight[sample][group].to(at::kFloat).contiguous()));
    }
  }
  return at::stack(all).view({x.size(0), x.size(1), x.size(2), weight.size(2)});
}

}  // namespace

Tensor attention_by_parts(const AttentionOperands& in, const AttentionProduct& product) {
  const LayerKv all = all_keys_and_values(in);
  const Tensor &key = all.key, &value = all.value;
  const std::int64_t batch = in.query.size(0), heads = in.query.size(1), length = in.query.size(2);
  const std::int64_t groups = key.size(1), keys = key.size(2), size = key.size(3);
  const at::ScalarType dtype = in.query.scalar_type();

  const Tensor rows = in.query.reshape({batch, groups, heads / groups * length, size});
  Tensor scores = products(rows, key, product).view({batch, heads, length, keys});
  if (in.form == AttentionForm::eager) scores = scores.to(dtype);
  scores = scores * in.scale;
  const auto softmax = [&](std::span<const Tensor> inputs) {
    const Tensor masked = in.mask.defined() ? inputs[0] + in.mask : inputs[0];
    return at::softmax(masked, -1, at::kFloat).to(dtype);
  };
  const std::span<const Tensor> inputs(&scores, 1);
  const Tensor weights = in.softmax != nullptr ? in.softmax->apply(inputs, softmax) : softmax(inputs);
  return products(weights.reshape({batch, groups, -1, keys}), value.transpose(2, 3), product)
      .view({batch, heads, length, size})
      .to(dtype);
}

}  // namespace pi0::model
