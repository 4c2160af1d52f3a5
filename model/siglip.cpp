#include "model/siglip.h"

#include <cmath>
#include <string>

namespace pi0::model {

SiglipAttention::SiglipAttention(const BuildContext& context, const VisionConfig& config)
    : num_heads_(config.num_heads),
      key_(context.add<Linear>(*this, "k_proj", config.width, config.width, Bias::present)),
      value_(context.add<Linear>(*this, "v_proj", config.width, config.width, Bias::present)),
      query_(context.add<Linear>(*this, "q_proj", config.width, config.width, Bias::present)),
      out_(context.add<Linear>(*this, "out_proj", config.width, config.width, Bias::present)),
      attention_(context.add<Attention>(*this, "sdpa", config.width / config.num_heads)),
      softmax_(context.add<VectorSite>(*this, "softmax", 0)),
      query_key_value_({&query_, &key_, &value_}) {}

Tensor SiglipAttention::operator()(const Tensor& x) const {
  const std::int64_t batch = x.size(0), length = x.size(1), width = x.size(2);
  const std::int64_t head_dim = width / num_heads_;
  const auto heads = [&](const Tensor& projected) {
    return projected.view({batch, length, num_heads_, head_dim}).transpose(1, 2);
  };
  const std::vector<Tensor> projected = query_key_value_(x);
  const Tensor attended = attention_({.form = AttentionForm::fused,
                                      .query = heads(projected[0]),
                                      .prefix = nullptr,
                                      .key = heads(projected[1]),
                                      .value = heads(projected[2]),
                                      .mask = {},
                                      .scale = std::pow(static_cast<double>(head_dim), -0.5),
                                      .softmax = softmax_.begin()});
  return out_(attended.transpose(1, 2).contiguous().view({batch, length, width}));
}

SiglipMlp::SiglipMlp(const BuildContext& context, const VisionConfig& config)
    : fc1_(context.add<Linear>(*this, "fc1", config.width, config.mlp_dim, Bias::present)),
      fc2_(context.add<Linear>(*this, "fc2", config.mlp_dim, config.width, Bias::present)),
      activation_(context.add<VectorSite>(*this, "act", config.mlp_dim)) {}

Tensor SiglipMlp::operator()(const Tensor& x) const {
  return fc2_(activation_(fc1_(x), [&](std::span<const Tensor> in) { return activation_.backend.gelu(in[0], {}); }));
}

SiglipLayer::SiglipLayer(const BuildContext& context, const VisionConfig& config)
    : norm1_(context.add<LayerNorm>(*this, "layer_norm1", config.width)),
      attention_(context.add<SiglipAttention>(*this, "self_attn", config)),
      norm2_(context.add<LayerNorm>(*this, "layer_norm2", config.width)),
      mlp_(context.add<SiglipMlp>(*this, "mlp", config)),
      attention_addition_(context.add<VectorSite>(*this, "self_attn.residual", config.width)),
      mlp_addition_(context.add<VectorSite>(*this, "mlp.residual", config.width)) {}

// Reference: modeling_siglip.py SiglipEncoderLayer.forward. The last residual is left to the next norm, which adds it.
Residual SiglipLayer::operator()(const Residual& x) const {
  const Normed before = norm1_(x);
  const Normed between = norm2_({before.sum, attention_(before.x), {}, attention_addition_.begin()});
  return {between.sum, mlp_(between.x), {}, mlp_addition_.begin()};
}

SiglipEmbeddings::SiglipEmbeddings(const BuildContext& context, const VisionConfig& config)
    : patch_size_(config.patch_size),
      patch_weight_(
          context.parameter(*this, "patch_embedding.weight", {config.width, 3, config.patch_size, config.patch_size})),
      patch_bias_(context.parameter(*this, "patch_embedding.bias", {config.width})),
      positions_(context.parameter(*this, "position_embedding.weight", {config.num_patches(), config.width})) {}

Tensor SiglipEmbeddings::operator()(const Tensor& image) const {
  const Tensor patches = at::conv2d(image, patch_weight_, patch_bias_, patch_size_);  // [B, W, h, w]
  return patches.flatten(2).transpose(1, 2) + positions_;
}

Siglip::Siglip(const BuildContext& context, const VisionConfig& config)
    : embeddings_(context.add<SiglipEmbeddings>(*this, "embeddings", config)) {
  for (std::int64_t i = 0; i < config.depth; ++i) {
    layers_.push_back(&context.add<SiglipLayer>(*this, "encoder.layers." + std::to_string(i), config));
  }
  post_norm_ = &context.add<LayerNorm>(*this, "post_layernorm", config.width);
}

Tensor Siglip::operator()(const Tensor& image) const {
  Residual x{embeddings_(image).to(layers_.front()->dtype())};
  for (const SiglipLayer* layer : layers_) x = (*layer)(x);
  return (*post_norm_)(x).x;
}

}  // namespace pi0::model
