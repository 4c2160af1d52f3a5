#include "model/backends/reference/reference_backend.h"

#include "model/attention_by_parts.h"
#include "model/backends/reference/reference_quantizer.h"
#include "model/linear.h"

namespace pi0::model {
namespace {

// Repeats each KV head for the query heads of its group, [B, G, S, D] to [B, H, S, D]: modeling_gemma.py repeat_kv.
Tensor repeat_heads(const Tensor& kv, std::int64_t query_heads) {
  const std::int64_t batch = kv.size(0), groups = kv.size(1), length = kv.size(2), size = kv.size(3);
  if (groups == query_heads) return kv;
  return kv.unsqueeze(2)
      .expand({batch, groups, query_heads / groups, length, size})
      .reshape({batch, query_heads, length, size});
}

Tensor eager_attention(const AttentionOperands& in) {
  const LayerKv all = all_keys_and_values(in);
  const Tensor key = repeat_heads(all.key, in.query.size(1)), value = repeat_heads(all.value, in.query.size(1));
  Tensor weights = at::matmul(in.query, key.transpose(2, 3)) * in.scale;
  if (in.mask.defined()) weights = weights + in.mask;
  weights = at::softmax(weights, -1, at::kFloat).to(in.query.scalar_type());
  return at::matmul(weights, value);
}

}  // namespace

Tensor plain_linear(const Tensor& x, const Tensor& weight, const Tensor& bias) { return at::linear(x, weight, bias); }

Tensor plain_attention(const AttentionOperands& in) {
  if (in.softmax != nullptr) {
    return attention_by_parts(in, [](const Tensor& x, const Tensor& weight) { return at::linear(x, weight); });
  }
  if (in.form == AttentionForm::eager) return eager_attention(in);
  return at::scaled_dot_product_attention(in.query.contiguous(), in.key.contiguous(), in.value.contiguous(),
                                          /*attn_mask=*/{}, /*dropout_p=*/0.0, /*is_causal=*/false, in.scale);
}

Tensor add_up(const Residual& in) {
  if (!in.update.defined()) return in.x;
  return in.gate.defined() ? in.x + in.update * in.gate.to(in.x.scalar_type()) : in.x + in.update;
}

ScaleAndShift scale_and_shift(const Tensor& weight, const Tensor& modulation) {
  if (!modulation.defined()) return {1.0 + weight.to(at::kFloat), {}};
  const auto parts = modulation.unsqueeze(1).chunk(3, -1);
  return {1 + parts[0].to(at::kFloat), parts[1].to(at::kFloat).contiguous()};
}

Tensor ReferenceBackend::linear(const Linear& linear, const Tensor& x) const {
  return plain_linear(x, linear.weight(), linear.bias());
}

Normed ReferenceBackend::rms_norm(const Residual& in, const Tensor& weight, const Tensor& modulation,
                                  double epsilon) const {
  const Tensor x = add_up(in);
  const auto [scale, shift] = scale_and_shift(weight, modulation);
  const Tensor variance = at::square(x.to(at::kFloat)).mean(-1, /*keepdim=*/true);
  const Tensor normed = x * at::rsqrt(variance + epsilon) * scale;  // float32
  return {x, (shift.defined() ? normed + shift : normed).to(x.scalar_type())};
}

Tensor ReferenceBackend::gelu(const Tensor& x, const Tensor& factor) const {
  const Tensor result = at::gelu(x, "tanh");
  return factor.defined() ? result * factor : result;
}

std::vector<Tensor> ReferenceBackend::rotate(std::span<const Tensor> heads, const RotaryAngles& angles) const {
  std::vector<Tensor> rotated;
  for (const Tensor& each : heads) rotated.push_back(model::rotate(each, angles));
  return rotated;
}

Tensor ReferenceBackend::attention(const AttentionOperands& operands) const { return plain_attention(operands); }

std::unique_ptr<Quantizer> ReferenceBackend::quantizer(ErrorSink& sink, std::function<void()>) const {
  return std::make_unique<ReferenceQuantizer>(*this, sink);
}

std::shared_ptr<const Backend> reference_backend() {
  static const auto backend = std::make_shared<const ReferenceBackend>();
  return backend;
}

}  // namespace pi0::model
