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
      rotary_(context.add<VectorSite>(*this, "rotary", config.head_dim)),
      softmax_(context.add<VectorSite>(*this, "softmax", 0)),
      query_key_value_({&query_, &key_, &value_}),
      backend_(context.backend) {}

Tensor GemmaAttention::heads(const Tensor& projected) const {
  return projected.view({projected.size(0), projected.size(1), -1, head_dim_}).transpose(1, 2);
}

// A hook takes queries and keys one after the other.
std::vector<Tensor> GemmaAttention::rotated(std::span<const Tensor> heads, const RotaryAngles& angles) const {
  VectorHook* const hook = rotary_.begin();
  if (hook == nullptr) return backend_.rotate(heads, angles);
  std::vector<Tensor> results;
  for (const Tensor& each : heads) {
    results.push_back(
        hook->apply({&each, 1}, [&](std::span<const Tensor> in) { return backend_.rotate(in, angles).front(); }));
  }
  return results;
}

Tensor GemmaAttention::operator()(const Tensor& x, const GemmaPass& pass, const LayerKv* prefix, LayerKv* own) const {
  const std::vector<Tensor> projected = query_key_value_(x);
  const std::array<Tensor, 2> unrotated = {heads(projected[0]), heads(projected[1])};
  const std::vector<Tensor> query_and_key = rotated(unrotated, pass.angles);
  const Tensor value = heads(projected[2]);
  if (own != nullptr) *own = {query_and_key[1], value};
  const Tensor attended = attention_({.form = AttentionForm::eager,
                                      .query = query_and_key[0],
                                      .prefix = prefix,
                                      .key = query_and_key[1],
                                      .value = value,
                                      .mask = pass.mask,
                                      .scale = scale_,
                                      .softmax = softmax_.begin()});
  return out_(attended.transpose(1, 2).contiguous().view({x.size(0), x.size(1), -1}));
}

LayerKv GemmaAttention::keys_and_values(const Tensor& x, const GemmaPass& pass) const {
  const Tensor key = heads(key_(x));
  return {rotated({&key, 1}, pass.angles).front(), heads(value_(x))};
}

bool GemmaAttention::is_observed_beyond_keys() const {
  return query_.is_observed() || out_.is_observed() || attention_.is_observed() || softmax_.is_observed() ||
         rotary_.is_observed();  // of queries too
}

GemmaMlp::GemmaMlp(const BuildContext& context, const GemmaConfig& config)
    : gate_(context.add<Linear>(*this, "gate_proj", config.width, config.mlp_dim)),
      up_(context.add<Linear>(*this, "up_proj", config.width, config.mlp_dim)),
      down_(context.add<Linear>(*this, "down_proj", config.mlp_dim, config.width)),
      activation_(context.add<VectorSite>(*this, "act", config.mlp_dim)),
      gate_and_up_({&gate_, &up_}) {}

Tensor GemmaMlp::operator()(const Tensor& x) const {
  VectorHook* const hook = activation_.begin();
  if (hook == nullptr) return down_(gate_and_up_.gated(x));
  return down_(
      hook->apply(gate_and_up_(x), [&](std::span<const Tensor> in) { return activation_.backend.gelu(in[0], in[1]); }));
}

bool GemmaMlp::is_observed() const {
  return gate_.is_observed() || up_.is_observed() || down_.is_observed() || activation_.is_observed();
}

GemmaLayer::GemmaLayer(const BuildContext& context, const GemmaConfig& config, RmsNorm::Form norms)
    : attention_(context.add<GemmaAttention>(*this, "self_attn", config)),
      mlp_(context.add<GemmaMlp>(*this, "mlp", config)),
      input_norm_(context.add<RmsNorm>(*this, "input_layernorm", config.width, norms)),
      post_attention_norm_(context.add<RmsNorm>(*this, "post_attention_layernorm", config.width, norms)),
      attention_addition_(context.add<VectorSite>(*this, "self_attn.residual", config.width)),
      mlp_addition_(context.add<VectorSite>(*this, "mlp.residual", config.width)) {}

// Reference: modeling_gemma.py GemmaDecoderLayer.forward. Its _gated_residual is left to the next norm, which adds it.
Residual GemmaLayer::operator()(const Residual& x, const GemmaPass& pass, const LayerModulation& modulation,
                                const LayerKv* prefix, LayerKv* own) const {
  const RmsNorm::Output before = input_norm_(x, modulation.input);
  const Residual attended{before.sum, attention_(before.x, pass, prefix, own), before.gate,
                          attention_addition_.begin()};
  const RmsNorm::Output between = post_attention_norm_(attended, modulation.post_attention);
  return {between.sum, mlp_(between.x), between.gate, mlp_addition_.begin()};
}

bool GemmaLayer::is_observed_beyond_keys() const {
  return attention_.is_observed_beyond_keys() || mlp_.is_observed() || post_attention_norm_.is_observed() ||
         attention_addition_.is_observed() || mlp_addition_.is_observed();
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
  // Only the KV cache is used: it does not depend on the rest of the last layer or on the final norm.
  const bool keys_suffice = skips_unread_ && !layers_.back()->is_observed_beyond_keys() && !norm_->is_observed();
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (i + 1 == layers_.size() && keys_suffice) {
      cache[i] = layer(i).keys_and_values(x, pass, {});
    } else {
      x = layer(i)(x, pass, {}, nullptr, &cache[i]);
    }
    cache[i] = (*kv_caches_[i])(cache[i]);
  }
  // Nobody reads the last addition and the final norm, but hooks may observe them.
  const bool is_end_observed = norm_->is_observed() || (x.addition != nullptr && x.addition->observes());
  if (!keys_suffice && is_end_observed) (*norm_)(x, {});
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
