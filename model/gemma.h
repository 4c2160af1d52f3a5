// The Gemma block and stack. PaliGemma's 2B language model and the 300M action expert differ only by their GemmaConfig
// and by whether their norms are adaptive. Modules are registered under the checkpoint's names.
// Reference: openpi's patched modeling_gemma.py.
#pragma once

#include <span>
#include <vector>

#include "model/attention.h"
#include "model/kv_cache.h"
#include "model/linear.h"
#include "model/model_config.h"
#include "model/norms.h"
#include "model/rope.h"
#include "model/vector_site.h"

namespace pi0::model {

// What all layers of a forward pass share.
struct GemmaPass {
  RotaryAngles angles;
  Tensor mask;  // [B, 1, L, P + L] float32
};

// Scale, shift and gate of one layer's adaptive norms, computed from the condition; undefined for plain norms.
struct LayerModulation {
  Tensor input;           // [B, 3W]
  Tensor post_attention;  // [B, 3W]
};
struct Modulation {
  std::vector<LayerModulation> layers;
  Tensor last;  // [B, 3W], of the final norm
};

class GemmaAttention : public torch::nn::Module {
 public:
  GemmaAttention(const BuildContext& context, const GemmaConfig& config);

  // x and the result are [B, L, W]. Attends to the cached `prefix` (null: none) and to x itself. Stores the keys and
  // values of x in `own` unless that is null.
  Tensor operator()(const Tensor& x, const GemmaPass& pass, const LayerKv* prefix, LayerKv* own) const;

  LayerKv keys_and_values(const Tensor& x, const GemmaPass& pass) const;

  bool is_observed_beyond_keys() const;  // whether a hook observes more than what computes the keys and values
  at::ScalarType dtype() const { return query_.dtype(); }

 private:
  Tensor heads(const Tensor& projected) const;  // [B, L, H·D] to [B, H, L, D]
  std::vector<Tensor> rotated(std::span<const Tensor> heads, const RotaryAngles& angles) const;

  std::int64_t head_dim_;
  double scale_;
  Linear &query_, &key_, &value_, &out_;
  Attention& attention_;
  VectorSite &rotary_, &softmax_;
  JoinedLinears query_key_value_;
  const Backend& backend_;
};

// down(GELU(gate(x)) · up(x))
class GemmaMlp : public torch::nn::Module {
 public:
  GemmaMlp(const BuildContext& context, const GemmaConfig& config);
  Tensor operator()(const Tensor& x) const;
  bool is_observed() const;

 private:
  Linear &gate_, &up_, &down_;
  VectorSite& activation_;  // GELU(gate(x)) · up(x)
  JoinedLinears gate_and_up_;
};

class GemmaLayer : public torch::nn::Module {
 public:
  GemmaLayer(const BuildContext& context, const GemmaConfig& config, RmsNorm::Form norms);

  // As GemmaAttention.
  Residual operator()(const Residual& x, const GemmaPass& pass, const LayerModulation& modulation,
                      const LayerKv* prefix, LayerKv* own) const;

  LayerKv keys_and_values(const Residual& x, const GemmaPass& pass, const LayerModulation& modulation) const;
  LayerModulation modulation(const Tensor& condition) const;  // condition [B, W]
  bool is_observed_beyond_keys() const;
  at::ScalarType dtype() const { return attention_.dtype(); }

 private:
  GemmaAttention& attention_;
  GemmaMlp& mlp_;
  RmsNorm &input_norm_, &post_attention_norm_;
  VectorSite &attention_addition_, &mlp_addition_;  // of the residuals
};

// Whether a stack runs the prefix, whose keys and values are kept.
enum class Prefills { no, yes };

class Gemma : public torch::nn::Module {
 public:
  Gemma(const BuildContext& context, const GemmaConfig& config, RmsNorm::Form norms, Prefills prefills);

  // Runs the prefix x [B, L, W] through all layers and returns their keys and values as they are kept. For
  // Prefills::yes.
  // mask [B, 1, L, L]; positions [B, L].
  KvCache prefill(const Tensor& x, const Tensor& mask, const Tensor& positions) const;

  // Computes what all layers and all denoise steps share. mask [B, 1, L, P + L]; positions [B, L].
  GemmaPass begin(const Tensor& mask, const Tensor& positions) const;

  // Runs the suffix x [B, L, W] with the KV cache of P prefix positions. Returns the final norm's output, as x.
  Tensor decode(const Tensor& x, const GemmaPass& pass, const Modulation& modulation, const KvCache& prefix) const;

  Modulation modulation(const Tensor& condition) const;  // condition [B, W], or undefined

 private:
  const GemmaLayer& layer(std::size_t index) const { return *layers_[index]; }

  std::vector<GemmaLayer*> layers_;
  std::vector<KvCacheSite*> kv_caches_;  // empty for Prefills::no
  RmsNorm* norm_;
  RotaryEmbedding rotary_;
  bool skips_unread_;
};

}  // namespace pi0::model
