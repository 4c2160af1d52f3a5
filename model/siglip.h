// SigLIP So400m/14, PaliGemma's vision tower. Modules are registered under the checkpoint's names.
// Reference: transformers' modeling_siglip.py with openpi's patch.
#pragma once

#include <vector>

#include "model/attention.h"
#include "model/linear.h"
#include "model/model_config.h"
#include "model/norms.h"
#include "model/vector_site.h"

namespace pi0::model {

class SiglipAttention : public torch::nn::Module {
 public:
  SiglipAttention(const BuildContext& context, const VisionConfig& config);
  Tensor operator()(const Tensor& x) const;  // [B, L, W] to the same
  at::ScalarType dtype() const { return query_.dtype(); }

 private:
  std::int64_t num_heads_;
  Linear &key_, &value_, &query_, &out_;
  Attention& attention_;
  VectorSite& softmax_;
  JoinedLinears query_key_value_;
};

// fc2(GELU(fc1(x)))
class SiglipMlp : public torch::nn::Module {
 public:
  SiglipMlp(const BuildContext& context, const VisionConfig& config);
  Tensor operator()(const Tensor& x) const;

 private:
  Linear &fc1_, &fc2_;
  VectorSite& activation_;
};

class SiglipLayer : public torch::nn::Module {
 public:
  SiglipLayer(const BuildContext& context, const VisionConfig& config);
  Residual operator()(const Residual& x) const;
  at::ScalarType dtype() const { return attention_.dtype(); }

 private:
  LayerNorm& norm1_;
  SiglipAttention& attention_;
  LayerNorm& norm2_;
  SiglipMlp& mlp_;
  VectorSite &attention_addition_, &mlp_addition_;  // of the residuals
};

// Patch embeddings by a convolution, plus learned position embeddings. Their weights are float32 in both precisions.
class SiglipEmbeddings : public torch::nn::Module {
 public:
  SiglipEmbeddings(const BuildContext& context, const VisionConfig& config);
  Tensor operator()(const Tensor& image) const;  // [B, 3, 224, 224] float32 in [-1, 1] to [B, patches, W] float32

 private:
  std::int64_t patch_size_;
  Tensor patch_weight_, patch_bias_;  // [W, 3, P, P], [W]
  Tensor positions_;                  // [patches, W]
};

class Siglip : public torch::nn::Module {
 public:
  Siglip(const BuildContext& context, const VisionConfig& config);
  Tensor operator()(const Tensor& image) const;  // [B, 3, 224, 224] float32 in [-1, 1] to [B, patches, W]

 private:
  SiglipEmbeddings& embeddings_;
  std::vector<SiglipLayer*> layers_;
  LayerNorm* post_norm_;
};

}  // namespace pi0::model
