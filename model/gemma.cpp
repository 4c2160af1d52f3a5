#include "model/gemma.h"

#include <algorithm>
#include <cmath>

namespace pi0::model {
GemmaLayer::GemmaLayer(BuildContext& context, const std::string& path, const GemmaConfig& config, RmsNorm::Form norms)
    : config_(config),
      query_(context, path + ".self_attn.q_proj", config.width, config.num_heads * config.head_dim),
      key_(context, path + ".self_attn.k_proj", config.width, config.num_kv_heads * config.head_dim),
      value_(context, path + ".self_attn.v_proj", config.width, config.num_kv_heads * config.head_dim),
      out_(context, path + ".self_attn.o_proj", config.num_heads * config.head_dim, config.width),
      attention_(context, path + ".self_attn", config.head_dim),
      gate_(context, path + ".mlp.gate_proj", config.width, config.mlp_dim),
      up_(context, path + ".mlp.up_proj", config.width, config.mlp_dim),
      down_(context, path + ".mlp.down_proj", config.mlp_dim, config.width),
      input_norm_(context, path + ".input_layernorm", config.width, norms),
      post_attention_norm_(context, path + ".post_attention_layernorm", config.width, norms),
      query_key_value_({&query_, &key_, &value_}),
      gate_and_up_({&gate_, &up_}),
      backend_(context.sites.backend()) {}

Tensor GemmaLayer::heads(const Tensor& projected) const {
  return projected.view({projected.size(0), projected.size(1), -1, config_.head_dim}).transpose(1, 2);
}

Tensor GemmaLayer::attend(const Tensor& x, const GemmaPass& pass, const LayerKv* prefix, LayerKv* own) const {
  const std::vector<Tensor> projected = query_key_value_(x);
  const auto [query, key] = backend_.rotate(heads(projected[0]), heads(projected[1]), pass.angles);
  const Tensor value = heads(projected[2]);
  if (own != nullptr) *own = {key, value};
  const Tensor attended = attention_({.form = AttentionForm::eager,
                                      .query = query,
                                      .prefix_key = prefix != nullptr ? prefix->key : Tensor{},
                                      .prefix_value = prefix != nullptr ? prefix->value : Tensor{},
                                      .key = key,
                                      .value = value,
                                      .mask = pass.mask,
                                      .scale = std::pow(static_cast<double>(config_.head_dim), -0.5)});
  return out_(attended.transpose(1, 2).contiguous().view({x.size(0), x.size(1), -1}));
}

Residual GemmaLayer::operator()(const Residual& x, const GemmaPass& pass, const LayerModulation& modulation,
                                const LayerKv* prefix, LayerKv* own) const {
  const RmsNorm::Output before = input_norm_(x, modulation.input);
  const Residual attended{before.sum, attend(before.x, pass, prefix, own), before.gate};
  const RmsNorm::Output between = post_attention_norm_(attended, modulation.post_attention);
  return {between.sum, down_(gate_and_up_.gated(between.x)), between.gate};
}

LayerKv GemmaLayer::keys_and_values(const Residual& x, const GemmaPass& pass, const LayerModulation& modulation) const {
  const Tensor normed = input_norm_(x, modulation.input).x;
  const Tensor key = heads(key_(normed));
  return {backend_.rotate(key, key, pass.angles).second, heads(value_(normed))};
}

LayerModulation GemmaLayer::modulation(const Tensor& condition) const {
  return {input_norm_.modulation(condition), post_attention_norm_.modulation(condition)};
}

bool GemmaLayer::is_observed_beyond_keys() const {
  return query_.is_observed() || out_.is_observed() || gate_.is_observed() || up_.is_observed() ||
         down_.is_observed() || attention_.is_observed();
}

Gemma::Gemma(BuildContext& context, const std::string& path, const GemmaConfig& config, RmsNorm::Form norms)
    : layers_([&] {
        std::vector<GemmaLayer> layers;
        for (std::int64_t i = 0; i < config.depth; ++i) {
          layers.emplace_back(context, path + ".layers." + std::to_string(i), config, norms);
        }
        return layers;
      }()),
      norm_(context, path + ".norm", config.width, norms),
      rotary_(config.head_dim, context.precision, context.execution.device),
      keep_tail_(context.execution.kernels == Kernels::reference) {}

GemmaPass Gemma::begin(const Tensor& mask, const Tensor& positions) const {
  return {rotary_.angles(positions, layers_.front().dtype()), mask};
}

Modulation Gemma::modulation(const Tensor& condition) const {
  Modulation modulation;
  for (const GemmaLayer& layer : layers_) modulation.layers.push_back(layer.modulation(condition));
  modulation.last = norm_.modulation(condition);
  return modulation;
}

KvCache Gemma::prefill(const Tensor& tokens, const Tensor& mask, const Tensor& positions) const {
  const GemmaPass pass = begin(mask, positions);
  KvCache cache(layers_.size());
  Residual x{tokens.to(layers_.front().dtype())};
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    // Of the last layer nothing else is read, nor is the final norm.
    if (i + 1 == layers_.size() && !keep_tail_ && !layers_[i].is_observed_beyond_keys()) {
      cache[i] = layers_[i].keys_and_values(x, pass, {});
    } else {
      x = layers_[i](x, pass, {}, nullptr, &cache[i]);
    }
  }
  return cache;
}

Tensor Gemma::decode(const Tensor& tokens, const GemmaPass& pass, const Modulation& modulation,
                     const KvCache& prefix) const {
  Residual x{tokens.to(layers_.front().dtype())};
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    x = layers_[i](x, pass, modulation.layers[i], &prefix[i], nullptr);
  }
  return norm_(x, modulation.last).x;
}

}  // namespace pi0::model
