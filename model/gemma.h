// The Gemma block and stack. PaliGemma's 2B language model and the 300M action expert differ only by
// their GemmaConfig and by whether their norms follow the flow time.
// Reference: openpi's patched modeling_gemma.py.
#pragma once

#include <string>
#include <vector>

#include "model/attention.h"
#include "model/kv_cache.h"
#include "model/linear.h"
#include "model/model_config.h"
#include "model/norms.h"
#include "model/rope.h"

namespace pi0::model {

// What every layer of a pass shares.
struct GemmaPass {
  RotaryAngles angles;
  Tensor mask;  // [B, 1, L, P + L] float32
};

// What a condition makes of one layer's norms; undefined where they are not adaptive.
struct LayerModulation {
  Tensor input;           // [B, 3W]
  Tensor post_attention;  // [B, 3W]
};
struct Modulation {
  std::vector<LayerModulation> layers;
  Tensor last;  // [B, 3W]
};

class GemmaLayer {
 public:
  GemmaLayer(BuildContext& context, const std::string& path, const GemmaConfig& config, RmsNorm::Form norms);

  // Attends to `prefix` (null: none) and to itself. The layer's own keys and values are put into `own` unless it
  // is null.
  Residual operator()(const Residual& x, const GemmaPass& pass, const LayerModulation& modulation,
                      const LayerKv* prefix, LayerKv* own) const;

  // Its keys and values alone.
  LayerKv keys_and_values(const Residual& x, const GemmaPass& pass, const LayerModulation& modulation) const;

  LayerModulation modulation(const Tensor& condition) const;  // of [B, W]

  // Whether a hook observes what the layer computes beyond its keys and values.
  bool is_observed_beyond_keys() const;

  at::ScalarType dtype() const { return query_.dtype(); }

 private:
  Tensor heads(const Tensor& projected) const;  // [B, L, H·D] to [B, H, L, D]
  Tensor attend(const Tensor& x, const GemmaPass& pass, const LayerKv* prefix, LayerKv* own) const;

  GemmaConfig config_;
  Linear query_, key_, value_, out_;
  Attention attention_;
  Linear gate_, up_, down_;
  RmsNorm input_norm_, post_attention_norm_;
  JoinedLinears query_key_value_, gate_and_up_;
  const Backend& backend_;
};

class Gemma {
 public:
  Gemma(BuildContext& context, const std::string& path, const GemmaConfig& config, RmsNorm::Form norms);

  // Runs the prefix x [B, L, W] through all layers and keeps their keys and values.
  // mask [B, 1, L, L]; positions [B, L].
  KvCache prefill(const Tensor& x, const Tensor& mask, const Tensor& positions) const;

  // What all layers and all denoise steps share of a pass. mask [B, 1, L, P + L]; positions [B, L].
  GemmaPass begin(const Tensor& mask, const Tensor& positions) const;

  // Runs the suffix x [B, L, W] against a cached prefix of P tokens; normed output [B, L, W].
  Tensor decode(const Tensor& x, const GemmaPass& pass, const Modulation& modulation, const KvCache& prefix) const;

  Modulation modulation(const Tensor& condition) const;  // of [B, W], or undefined

 private:
  std::vector<GemmaLayer> layers_;
  RmsNorm norm_;
  RotaryEmbedding rotary_;
  bool keep_tail_;  // compute what nothing reads, as the reference does
};

}  // namespace pi0::model
