#include "model/gemma.h"

#include <array>
#include <cmath>
#include <string>

namespace pi0::model {

GemmaAttention::GemmaAttention(const BuildContext& context, const GemmaConfig& config)
    : head_dim_(config.head_dim),
      scale_(std::pow(static_cast<double>(config.head_dim), -0.5)),
      query_(context.add<Linear>(*this, "q_proj", config.width, config.num_heads * config.head_dim)),
      key_(context.add<Linear>(*this, "k_proj", config.width, config.num_kv_heads * config.head_dim)),
      value_(context.add<Linear>(*this, "v_proj", config.width, config.num_kv_heads * config.head_dim)),
      out_(context.add<Linear>(*this, "o_proj", config.num_heads * config.head_dim, config.width)),
      attention_(context.add<Attention>(*this, "sdpa", config.head_dim)),
      query_key_value_({&query_, &key_, &value_}),
      backend_(context.backend) {}

Tensor GemmaAttention::heads(const Tensor& projected) const {
  return projected.view({projected.size(0), projected.size(1), -1, head_dim_}).transpose(1, 2);
}

Tensor GemmaAttention::operator()(const Tensor& x, const GemmaPass& pass, const LayerKv* prefix, LayerKv* own) const {
  const std::vector<Tensor> projected = query_key_value_(x);
  const std::array<Tensor, 2> unrotated = {heads(projected[0]), heads(projected[1])};
  const std::vector<Tensor> rotated = backend_.rotate(unrotated, pass.angles);
  const Tensor value = heads(projected[2]);
  if (own != nullptr) *own = {rotated[1], value};
  const Tensor attended = attention_({.form = AttentionForm::eager,
                                      .query = rotated[0],
                                      .prefix = prefix,
                                      .key = rotated[1],
                                      .value = value,
                                      .mask = pass.mask,
                                      .scale = scale_});
  return out_(attended.transpose(1, 2).contiguous().view({x.size(0), x.size(1), -1}));
}

LayerKv GemmaAttention::keys_and_values(const Tensor& x, const GemmaPass& pass) const {
  const Tensor key = heads(key_(x));
  return {backend_.rotate({&key, 1}, pass.angles).front(), heads(value_(x))};
}

bool GemmaAttention::is_observed_beyond_keys() const {
  return query_.is_observed() || out_.is_observed() || attention_.is_observed();
}

GemmaMlp::GemmaMlp(const BuildContext& context, const GemmaConfig& config)
    : gate_(context.add<Linear>(*this, "gate_proj", config.width, config.mlp_dim)),
      up_(context.add<Linear>(*this, "up_proj", config.width, config.mlp_dim)),
      down_(context.add<Linear>(*this, "down_proj", config.mlp_dim, config.width)),
      gate_and_up_({&gate_, &up_}) {}

GemmaLayer::GemmaLayer(const BuildContext& context, const GemmaConfig& config, RmsNorm::Form norms)
    : attention_(context.add<GemmaAttention>(*this, "self_attn", config)),
      mlp_(context.add<GemmaMlp>(*this, "mlp", config)),
      input_norm_(context.add<RmsNorm>(*this, "input_layernorm", config.width, norms)),
      post_attention_norm_(context.add<RmsNorm>(*this, "post_attention_layernorm", config.width, norms)) {}

// Reference: modeling_gemma.py GemmaDecoderLayer.forward. Its _gated_residual is left to the next norm, which adds it.
Residual GemmaLayer::operator()(const Residual& x, const GemmaPass& pass, const LayerModulation& modulation,
                                const LayerKv* prefix, LayerKv* own) const {
  const RmsNorm::Output before = input_norm_(x, modulation.input);
  const Residual attended{before.sum, attention_(before.x, pass, prefix, own), before.gate};
  const RmsNorm::Output between = post_attention_norm_(attended, modulation.post_attention);
  return {between.sum, mlp_(between.x), between.gate};
}

LayerKv GemmaLayer::keys_and_values(const Residual& x, const GemmaPass& pass, const LayerModulation& modulation) const {
  return attention_.keys_and_values(input_norm_(x, modulation.input).x, pass);
}

LayerModulation GemmaLayer::modulation(const Tensor& condition) const {
  return {input_norm_.modulation(condition), post_attention_norm_.modulation(condition)};
}

Gemma::Gemma(const BuildContext& context, const GemmaConfig& config, RmsNorm::Form norms, Prefills prefills)
    : rotary_(config.head_dim, context.precision, context.device), skips_unread_(context.backend.skips_unread()) {
  for (std::int64_t i = 0; i < config.depth; ++i) {
    const std::string name = "layers." + std::to_string(i);
    layers_.push_back(&context.add<GemmaLayer>(*this, name, config, norms));
    if (prefills == Prefills::no) continue;
    kv_caches_.push_back(&context.add<KvCacheSite>(*this, name + ".self_attn.kv_cache", config.head_dim));
  }
  norm_ = &context.add<RmsNorm>(*this, "norm", config.width, norms);
}

GemmaPass Gemma::begin(const Tensor& mask, const Tensor& positions) const {
  return {rotary_.angles(positions, layer(0).dtype()), mask};
}

Modulation Gemma::modulation(const Tensor& condition) const {
  Modulation modulation;
  for (const GemmaLayer* layer : layers_) modulation.layers.push_back(layer->modulation(condition));
  modulation.last = norm_->modulation(condition);
  return modulation;
}

KvCache Gemma::prefill(const Tensor& tokens, const Tensor& mask, const Tensor& positions) const {
  const GemmaPass pass = begin(mask, positions);
  KvCache cache(layers_.size());
  Residual x{tokens.to(layer(0).dtype())};
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    // Only the KV cache is used: it does not depend on the rest of the last layer or on the final norm.
    if (i + 1 == layers_.size() && skips_unread_ && !layer(i).is_observed_beyond_keys()) {
      cache[i] = layer(i).keys_and_values(x, pass, {});
    } else {
      x = layer(i)(x, pass, {}, nullptr, &cache[i]);
    }
    cache[i] = (*kv_caches_[i])(cache[i]);
  }
  return cache;
}

Tensor Gemma::decode(const Tensor& tokens, const GemmaPass& pass, const Modulation& modulation,
                     const KvCache& prefix) const {
  Residual x{tokens.to(layer(0).dtype())};
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    x = layer(i)(x, pass, modulation.layers[i], &prefix[i], nullptr);
  }
  return (*norm_)(x, modulation.last).x;
}

}  // namespace pi0::model
