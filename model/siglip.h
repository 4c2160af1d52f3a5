// SigLIP So400m/14, PaliGemma's vision tower, and the projection to the language model's width.
// Reference: transformers' modeling_siglip.py with openpi's patch.
#pragma once

#include <string>
#include <vector>

#include "model/attention.h"
#include "model/linear.h"
#include "model/model_config.h"
#include "model/norms.h"

namespace pi0::model {

class SiglipLayer {
 public:
  SiglipLayer(BuildContext& context, const std::string& path, const VisionConfig& config);
  Residual operator()(const Residual& x) const;
  at::ScalarType dtype() const { return query_.dtype(); }

 private:
  Tensor attend(const Tensor& x) const;
  Tensor feed(const Tensor& x) const;

  std::int64_t num_heads_;
  LayerNorm norm1_;
  Linear key_, value_, query_, out_;
  Attention attention_;
  LayerNorm norm2_;
  Linear fc1_, fc2_;
  JoinedLinears query_key_value_;
  const Backend& backend_;
};

class Siglip {
 public:
  Siglip(BuildContext& context, const std::string& path, const VisionConfig& config);
  // [B, 3, 224, 224] float32 in [-1, 1] to [B, patches, W]
  Tensor operator()(const Tensor& image) const;

 private:
  std::int64_t patch_size_;
  Tensor patch_weight_, patch_bias_;  // [W, 3, P, P], [W]; float32 in both precisions
  Tensor positions_;                  // [patches, W] float32
  std::vector<SiglipLayer> layers_;
  LayerNorm post_norm_;
};

}  // namespace pi0::model
