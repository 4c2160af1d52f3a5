// Pi0 and Pi0.5: a prefix of image and prompt tokens through PaliGemma once, then an action chunk
// denoised by the action expert against the prefix's keys and values. START HERE.
// Reference: openpi src/openpi/models_pytorch/pi0_pytorch.py. Knows no formats, robots or bytes.
//
// Shape letters: B batch, L tokens, W width, H heads, D head size, A action horizon, N action size.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/gemma.h"
#include "model/linear.h"
#include "model/model_config.h"
#include "model/siglip.h"

namespace pi0::model {

// One batch of observations, as openpi's Observation holds them. On any device.
struct ModelInputs {
  std::vector<Tensor> images;       // per camera [B, 3, 224, 224] float32 in [-1, 1], or pixels [B, 224, 224, 3] uint8
  std::vector<Tensor> image_masks;  // per camera [B] bool
  Tensor tokens;                    // [B, T] integer, 0 where padded
  Tensor token_mask;                // [B, T] bool
  Tensor state;                     // [B, N] floating, normalised and padded
};

// Samples with as many images as one batch; a single one as it is.
ModelInputs joined(std::span<const ModelInputs> samples);

// openpi's image conversion: [B, H, W, 3] uint8 to [B, 3, H, W] float32 in [-1, 1]. The result keeps
// the channels-last memory of its source, which decides the convolution that the reference runs.
Tensor image_to_input(const Tensor& pixels);

// Intermediate tensors of one call by name, on the CPU, float32 (masks bool):
// image_features [cameras, B, 256, W], prefix_embeddings [B, L, W], prefix_pad_mask [B, L],
// prefix_{key,value}_layer{0,last} [B, KV heads, L, D] after rotary, suffix_embeddings_step0,
// adarms_cond_step0 (Pi0.5), expert_output_step0, velocity [steps, B, A, N].
using Trace = std::map<std::string, Tensor>;

// Cameras that are masked out and prompt places that are padding change nothing but rounding.
enum class MaskedInputs {
  keep,  // computed and then ignored, as openpi does
  skip   // left out where no sample of the batch has them
};

// Seconds of one call by stage.
struct StageSeconds {
  double vision = 0;            // cameras to tokens
  double prefix = 0;            // language model
  std::vector<double> denoise;  // per step; the mean of all, where they are recorded as one
};

struct SampleOptions {
  MaskedInputs masked = MaskedInputs::keep;
  Trace* trace = nullptr;           // filled, with masked inputs kept
  StageSeconds* seconds = nullptr;  // filled
};

class Pi0 {
 public:
  // Asks `weights` for every parameter. Throws what it throws. On a GPU, turns off TF32 for this process: it
  // would round float32 operands to ten bits.
  Pi0(const ModelConfig& config, WeightSource& weights, Precision precision, const Execution& execution);
  Pi0(const Pi0&) = delete;
  Pi0& operator=(const Pi0&) = delete;

  // Euler-integrates the learned velocity from noise (time 1) to actions (time 0).
  // noise and result: [B, A, N] float32; the result is on the model's device. Throws
  // std::invalid_argument when an input has another shape or dtype or a token is out of range.
  Tensor sample_actions(const ModelInputs& inputs, const Tensor& noise, std::int64_t num_steps,
                        const SampleOptions& options = {}) const;

  const ModelConfig& config() const { return config_; }
  at::Device device() const { return device_; }
  SiteList& sites() { return sites_; }
  const SiteList& sites() const { return sites_; }

 private:
  // A vocabulary head: part of the checkpoint and of every list of layers, never called.
  struct UnusedHead {
    UnusedHead(BuildContext& context, const std::string& path, std::int64_t width, std::int64_t vocab_size);
  };
  struct Prefix {
    Tensor tokens;    // [B, L, W]
    Tensor pad_mask;  // [B, L] bool, true for real tokens
    KvCache cache;
  };
  // What the flow time of every step makes of the expert's norms. Batch 1: it is the same for all.
  struct Schedule {
    std::int64_t num_steps = 0;
    std::int64_t hook_changes = 0;
    bool observed = false;  // hooks know what they observed of it
    std::vector<Modulation> steps;
  };
  // One request on its way: what its stages are given and hand on. They run on the model's device.
  struct Pass {
    ModelInputs in;
    Tensor noise;  // [B, A, N]
    std::int64_t num_steps = 0;
    std::vector<std::size_t> cameras;          // those that are computed
    std::int64_t places = 0;                   // of the prompt, likewise
    std::shared_ptr<const Schedule> schedule;  // null: every step computes its own
    std::vector<Tensor> image_tokens;          // per computed camera [B, patches, W]
    Prefix prefix;
    Tensor actions;  // [B, A, N]
  };
  using Stages = std::vector<Recorder::Work>;  // vision, prefix, denoise
  // A kind of request whose stages the device can repeat.
  struct Recording {
    std::vector<std::int64_t> kind;       // requests of one kind do the same to tensors of the same shapes
    Pass pass = {};                       // the tensors that the stages read and write
    Stages stages = {};                   // none yet: such a request was seen once
    std::vector<std::int64_t> flop = {};  // that they count at each site
  };
  Pi0(const ModelConfig& config, BuildContext context);
  void check_inputs(const ModelInputs& inputs, const Tensor& noise) const;
  static std::vector<Tensor*> inputs_of(Pass& pass);
  void move_to_device(Pass& pass) const;
  Pass begin(const ModelInputs& inputs, const Tensor& noise, std::int64_t num_steps,
             const SampleOptions& options) const;
  Stages stages(Pass& pass, const SampleOptions& options) const;
  void embed_images(Pass& pass, Trace* trace) const;
  void prefill(Pass& pass, Trace* trace) const;
  void denoise(Pass& pass, const SampleOptions& options) const;
  void run(const Stages& stages, StageSeconds* seconds) const;
  Tensor sample_recorded(Pass pass, const SampleOptions& options) const;
  std::vector<std::int64_t> kind_of(const Pass& pass) const;
  void record(Recording& recording, const Pass& pass) const;
  Tensor embed_suffix(const Tensor& state, const Tensor& noisy_actions, const Tensor& time) const;
  Tensor time_condition(const Tensor& time) const;  // [B, W] float32, Pi0.5 only
  GemmaPass begin_suffix(const Prefix& prefix) const;
  Tensor denoise_step(const Pass& pass, const GemmaPass& suffix_pass, const Tensor& time, const Modulation* scheduled,
                      Trace* trace) const;  // velocity [B, A, N]
  std::shared_ptr<const Schedule> schedule(std::int64_t num_steps, std::int64_t batch, Trace* trace) const;

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
  std::optional<Linear> state_;                      // Pi0
  Linear time_mlp_in_, time_mlp_out_;                // action_time_mlp_* in Pi0
  std::vector<const MatmulSite*> vision_sites_;      // of the cameras' way, the projector's too
  std::vector<const MatmulSite*> modulation_sites_;  // of the flow time alone; Pi0.5 only
  bool keep_schedule_;                               // false: compute it anew in every call, as the reference does
  // Of earlier calls; calls must not overlap.
  mutable std::shared_ptr<const Schedule> schedule_;
  mutable std::list<Recording> recordings_;  // the last used first
};

}  // namespace pi0::model
