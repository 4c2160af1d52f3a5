#include "model/siglip.h"

#include <cmath>

namespace pi0::model {

SiglipLayer::SiglipLayer(BuildContext& context, const std::string& path, const VisionConfig& config)
    : num_heads_(config.num_heads),
      norm1_(context, path + ".layer_norm1", config.width),
      key_(context, path + ".self_attn.k_proj", config.width, config.width, Bias::present),
      value_(context, path + ".self_attn.v_proj", config.width, config.width, Bias::present),
      query_(context, path + ".self_attn.q_proj", config.width, config.width, Bias::present),
      out_(context, path + ".self_attn.out_proj", config.width, config.width, Bias::present),
      attention_(context, path + ".self_attn", config.width / config.num_heads),
      norm2_(context, path + ".layer_norm2", config.width),
      fc1_(context, path + ".mlp.fc1", config.width, config.mlp_dim, Bias::present),
      fc2_(context, path + ".mlp.fc2", config.mlp_dim, config.width, Bias::present),
      query_key_value_({&query_, &key_, &value_}),
      backend_(context.sites.backend()) {}

Tensor SiglipLayer::attend(const Tensor& x) const {
  const std::int64_t batch = x.size(0), length = x.size(1), width = x.size(2);
  const std::int64_t head_dim = width / num_heads_;
  const auto heads = [&](const Tensor& projected) {
    return projected.view({batch, length, num_heads_, head_dim}).transpose(1, 2);
  };
  const std::vector<Tensor> projected = query_key_value_(x);
  const Tensor attended = attention_({.form = AttentionForm::fused,
                                      .query = heads(projected[0]),
                                      .prefix_key = {},
                                      .prefix_value = {},
                                      .key = heads(projected[1]),
                                      .value = heads(projected[2]),
                                      .mask = {},
                                      .scale = std::pow(static_cast<double>(head_dim), -0.5)});
  return out_(attended.transpose(1, 2).contiguous().view({batch, length, width}));
}

Residual SiglipLayer::operator()(const Residual& x) const {
  const Normed before = norm1_(x);
  const Normed between = norm2_({before.sum, attend(before.x)});
  return {between.sum, feed(between.x)};
}

Tensor SiglipLayer::feed(const Tensor& x) const { return fc2_(backend_.gelu(fc1_(x), {})); }

Siglip::Siglip(BuildContext& context, const std::string& path, const VisionConfig& config)
    : patch_size_(config.patch_size),
      patch_weight_(context.parameter(path + ".embeddings.patch_embedding.weight",
                                      {config.width, 3, config.patch_size, config.patch_size})),
      patch_bias_(context.parameter(path + ".embeddings.patch_embedding.bias", {config.width})),
      positions_(
          context.parameter(path + ".embeddings.position_embedding.weight", {config.num_patches(), config.width})),
      layers_([&] {
        std::vector<SiglipLayer> layers;
        for (std::int64_t i = 0; i < config.depth; ++i) {
          layers.emplace_back(context, path + ".encoder.layers." + std::to_string(i), config);
        }
        return layers;
      }()),
      post_norm_(context, path + ".post_layernorm", config.width) {}

Tensor Siglip::operator()(const Tensor& image) const {
  const Tensor patches = at::conv2d(image, patch_weight_, patch_bias_, patch_size_);  // [B, W, h, w]
  const Tensor tokens = patches.flatten(2).transpose(1, 2) + positions_;
  Residual x{tokens.to(layers_.front().dtype())};
  for (const SiglipLayer& layer : layers_) x = layer(x);
  return post_norm_(x).x;
}

}  // namespace pi0::model
