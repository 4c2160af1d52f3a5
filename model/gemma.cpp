#include "model/gemma.h"

#include <cmath>

namespace pi0::model {
namespace {

// modeling_gemma.py _gated_residual
Tensor add_residual(const Tensor& x, const Tensor& y, const Tensor& gate) {
  return gate.defined() ? x + y * gate : x + y;
}

}  // namespace

GemmaLayer::GemmaLayer(BuildContext& context, const std::string& path, const GemmaConfig& config,
                       RmsNorm::Form norms)
    : config_(config),
      query_(context, path + ".self_attn.q_proj", config.width, config.num_heads * config.head_dim),
      key_(context, path + ".self_attn.k_proj", config.width,
           config.num_kv_heads * config.head_dim),
      value_(context, path + ".self_attn.v_proj", config.width,
             config.num_kv_heads * config.head_dim),
      out_(context, path + ".self_attn.o_proj", config.num_heads * config.head_dim, config.width),
      attention_(context, path + ".self_attn", config.head_dim),
      gate_(context, path + ".mlp.gate_proj", config.width, config.mlp_dim),
      up_(context, path + ".mlp.up_proj", config.width, config.mlp_dim),
      down_(context, path + ".mlp.down_proj", config.mlp_dim, config.width),
      input_norm_(context, path + ".input_layernorm", config.width, norms),
      post_attention_norm_(context, path + ".post_attention_layernorm", config.width, norms) {}

Tensor GemmaLayer::attend(const Tensor& x, const GemmaPass& pass, const LayerKv* prefix,
                          LayerKv* own) const {
  const std::int64_t batch = x.size(0), length = x.size(1);
  const auto heads = [&](const Tensor& projected) {
    return projected.view({batch, length, -1, config_.head_dim}).transpose(1, 2);
  };
  const Tensor query = rotate(heads(query_(x)), pass.angles);
  const Tensor key = rotate(heads(key_(x)), pass.angles);
  const Tensor value = heads(value_(x));
  if (own != nullptr) *own = {key, value};
  const Tensor attended =
      attention_({.form = AttentionForm::eager,
                  .query = query,
                  .prefix_key = prefix != nullptr ? prefix->key : Tensor{},
                  .prefix_value = prefix != nullptr ? prefix->value : Tensor{},
                  .key = key,
                  .value = value,
                  .mask = pass.mask,
                  .scale = std::pow(static_cast<double>(config_.head_dim), -0.5)});
  return out_(attended.transpose(1, 2).contiguous().view({batch, length, -1}));
}

Tensor GemmaLayer::operator()(const Tensor& x, const GemmaPass& pass, const LayerKv* prefix,
                              LayerKv* own) const {
  const RmsNorm::Output before = input_norm_(x, pass.condition);
  const Tensor attended = add_residual(x, attend(before.x, pass, prefix, own), before.gate);
  const RmsNorm::Output between = post_attention_norm_(attended, pass.condition);
  const Tensor fed = down_(at::gelu(gate_(between.x), "tanh") * up_(between.x));
  return add_residual(attended, fed, between.gate);
}

Gemma::Gemma(BuildContext& context, const std::string& path, const GemmaConfig& config,
             RmsNorm::Form norms)
    : layers_([&] {
        std::vector<GemmaLayer> layers;
        for (std::int64_t i = 0; i < config.depth; ++i) {
          layers.emplace_back(context, path + ".layers." + std::to_string(i), config, norms);
        }
        return layers;
      }()),
      norm_(context, path + ".norm", config.width, norms),
      rotary_(config.head_dim, context.precision, context.device) {}

GemmaPass Gemma::begin(const Tensor& mask, const Tensor& positions, const Tensor& condition) const {
  return {rotary_.angles(positions, layers_.front().dtype()), mask, condition};
}

KvCache Gemma::prefill(const Tensor& tokens, const Tensor& mask, const Tensor& positions) const {
  const GemmaPass pass = begin(mask, positions, {});
  KvCache cache(layers_.size());
  Tensor x = tokens.to(layers_.front().dtype());
  for (std::size_t i = 0; i < layers_.size(); ++i) x = layers_[i](x, pass, nullptr, &cache[i]);
  return cache;  // the final norm is not computed: nothing reads the prefix's output
}

Tensor Gemma::decode(const Tensor& tokens, const Tensor& mask, const Tensor& positions,
                     const Tensor& condition, const KvCache& prefix) const {
  const GemmaPass pass = begin(mask, positions, condition);
  Tensor x = tokens.to(layers_.front().dtype());
  for (std::size_t i = 0; i < layers_.size(); ++i) x = layers_[i](x, pass, &prefix[i], nullptr);
  return norm_(x, condition).x;
}

}  // namespace pi0::model
