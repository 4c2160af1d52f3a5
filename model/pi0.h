// Pi0 and Pi0.5: a prefix of image and prompt tokens through PaliGemma once, then an action chunk
// denoised by the action expert against the prefix's keys and values. START HERE.
// Reference: openpi src/openpi/models_pytorch/pi0_pytorch.py. Knows no formats, robots or bytes.
//
// Shape letters: B batch, L tokens, W width, H heads, D head size, A action horizon, N action size.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/gemma.h"
#include "model/linear.h"
#include "model/model_config.h"
#include "model/siglip.h"

namespace pi0::model {

// One batch of observations, as openpi's Observation holds them. On any device.
struct ModelInputs {
  std::vector<Tensor> images;       // per camera [B, 3, 224, 224] float32 in [-1, 1]
  std::vector<Tensor> image_masks;  // per camera [B] bool
  Tensor tokens;                    // [B, T] integer, 0 where padded
  Tensor token_mask;                // [B, T] bool
  Tensor state;                     // [B, N] floating, normalised and padded
};

// openpi's image conversion: [B, H, W, 3] uint8 to [B, 3, H, W] float32 in [-1, 1]. The result keeps
// the channels-last memory of its source, which decides the convolution that the reference runs.
Tensor image_to_input(const Tensor& pixels);

// Intermediate tensors of one call by name, on the CPU, float32 (masks bool):
// image_features [cameras, B, 256, W], prefix_embeddings [B, L, W], prefix_pad_mask [B, L],
// prefix_{key,value}_layer{0,last} [B, KV heads, L, D] after rotary, suffix_embeddings_step0,
// adarms_cond_step0 (Pi0.5), expert_output_step0, velocity [steps, B, A, N].
using Trace = std::map<std::string, Tensor>;

class Pi0 {
 public:
  // Asks `weights` for every parameter. Throws what it throws.
  Pi0(const ModelConfig& config, WeightSource& weights, Precision precision, at::Device device);
  Pi0(const Pi0&) = delete;
  Pi0& operator=(const Pi0&) = delete;

  // Euler-integrates the learned velocity from noise (time 1) to actions (time 0).
  // noise and result: [B, A, N] float32; the result is on the model's device. Throws
  // std::invalid_argument when an input has another shape or dtype or a token is out of range.
  Tensor sample_actions(const ModelInputs& inputs, const Tensor& noise, std::int64_t num_steps,
                        Trace* trace = nullptr) const;

  const ModelConfig& config() const { return config_; }
  at::Device device() const { return device_; }
  SiteList& sites() { return sites_; }
  const SiteList& sites() const { return sites_; }

 private:
  // A vocabulary head: part of the checkpoint and of every list of layers, never called.
  struct UnusedHead {
    UnusedHead(BuildContext& context, const std::string& path, std::int64_t width,
               std::int64_t vocab_size);
  };
  struct Prefix {
    Tensor tokens;    // [B, L, W]
    Tensor pad_mask;  // [B, L] bool, true for real tokens
    KvCache cache;
  };
  struct Suffix {
    Tensor tokens;     // [B, S, W] float32: actions, after the state token in Pi0
    Tensor condition;  // [B, W] float32, Pi0.5 only
  };
  Pi0(const ModelConfig& config, BuildContext context);
  ModelInputs checked(const ModelInputs& inputs, const Tensor& noise) const;
  Prefix embed_prefix(const ModelInputs& inputs, Trace* trace) const;
  Suffix embed_suffix(const Tensor& state, const Tensor& noisy_actions, const Tensor& time) const;
  Tensor denoise_step(const Tensor& state, const Prefix& prefix, const Tensor& noisy_actions,
                      float time, Trace* trace) const;  // velocity [B, A, N]

  ModelConfig config_;
  at::Device device_;
  SiteList sites_;          // modules point into it
  Tensor token_embedding_;  // [vocabulary, W]
  Siglip vision_;
  Linear projector_;
  Gemma language_model_;
  UnusedHead language_head_;
  Gemma action_expert_;
  UnusedHead expert_head_;
  Linear action_in_, action_out_;
  std::optional<Linear> state_;        // Pi0
  Linear time_mlp_in_, time_mlp_out_;  // action_time_mlp_* in Pi0
};

}  // namespace pi0::model
