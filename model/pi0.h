// Pi0 and Pi0.5: a prefix of image and prompt tokens through PaliGemma once, then an action chunk
// denoised by the action expert against the prefix's keys and values. START HERE.
// Reference: openpi src/openpi/models_pytorch/pi0_pytorch.py. Knows nothing of robots or protocols.
//
// The model is a tree of torch::nn::Modules whose registered names are the checkpoint's.
// Shape letters: B batch, L tokens, W width, H heads, D head size, A action horizon, N action size.
#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/gemma.h"
#include "model/linear.h"
#include "model/model_config.h"
#include "model/model_inputs.h"
#include "model/pass.h"
#include "model/recorded_requests.h"
#include "model/schedule.h"
#include "model/siglip.h"
#include "model/vector_site.h"

namespace pi0::model {

// Masked cameras and padded prompt positions affect the result by rounding only.
enum class MaskedInputs {
  keep,  // computed and then ignored, as openpi does
  skip   // not computed if no sample of the batch uses them
};

struct SampleOptions {
  MaskedInputs masked = MaskedInputs::keep;
  Trace* trace = nullptr;           // filled unless null; without the inputs that are skipped
  Tensor* velocity = nullptr;       // of every denoise step, [steps, B, A, N] float32 on the CPU; filled unless null
  StageSeconds* seconds = nullptr;  // filled unless null
};

class Pi0 : public torch::nn::Module {
 public:
  // Loads every parameter from `weights` and throws what that throws. On a GPU, turns off, for the whole process, TF32
  // (which rounds float32 operands to ten bits) and reduced-precision sums of matmuls.
  Pi0(const ModelConfig& config, WeightSource& weights, Precision precision, const Execution& execution);
  Pi0(const Pi0&) = delete;
  Pi0& operator=(const Pi0&) = delete;

  // Euler-integrates the learned velocity from noise (time 1) to actions (time 0).
  // noise and result: [B, A, N] float32; the result is on the model's device. Throws
  // std::invalid_argument if an input has a wrong shape or dtype, or if a token is out of range.
  // Calls must not overlap.
  Tensor sample_actions(const ModelInputs& inputs, const Tensor& noise, std::int64_t num_steps,
                        const SampleOptions& options = {}) const;

  // Whether every denoise step computes `site` anew: those of the action expert and head, unless requests of so many
  // steps share what it computed.
  bool is_in_each_step(const MatmulSite& site, std::int64_t num_steps) const;

  const ModelConfig& config() const { return config_; }
  const Execution& execution() const { return execution_; }
  at::Device device() const { return execution_.device; }
  SiteList& sites() { return sites_; }
  const SiteList& sites() const { return sites_; }

 private:
  Pi0(const ModelConfig& config, const BuildContext& context, Execution execution);
  Pass begin(const ModelInputs& inputs, const Tensor& noise, std::int64_t num_steps,
             const SampleOptions& options) const;
  Stages stages(Pass& pass, const SampleOptions& options) const;
  void embed_images(Pass& pass, Trace* trace) const;
  void prefill(Pass& pass, Trace* trace) const;
  void denoise(Pass& pass, const SampleOptions& options) const;
  Tensor embed_suffix(const Tensor& state, const Tensor& noisy_actions, const Tensor& time) const;
  Tensor time_condition(const Tensor& time) const;  // [B, W] float32, Pi0.5 only
  GemmaPass begin_suffix(const Prefix& prefix) const;
  Tensor denoise_step(const Pass& pass, const GemmaPass& suffix_pass, const Tensor& time, const Modulation* scheduled,
                      Trace* trace) const;                  // velocity [B, A, N]
  std::vector<const MatmulSite*> vision_sites() const;      // the vision tower and the projector
  std::vector<const MatmulSite*> modulation_sites() const;  // those that depend only on the flow time, in Pi0.5

  ModelConfig config_;
  Execution execution_;
  Siglip& vision_;
  Linear& projector_;
  Gemma& language_model_;
  Tensor token_embedding_;  // [vocabulary, W]
  Gemma& action_expert_;
  Linear &action_in_, &action_out_;
  Linear* state_;                        // Pi0 only
  Linear &time_mlp_in_, &time_mlp_out_;  // action_time_mlp_* in Pi0
  VectorSite& time_in_activation_;       // SiLU, as the next
  VectorSite* time_out_activation_;      // Pi0.5 only
  SiteList sites_;
  const std::vector<const MatmulSite*> vision_sites_;
  // Caches across calls; null if unused.
  mutable std::unique_ptr<ScheduleKeeper> schedules_;
  mutable std::unique_ptr<RecordedRequests> recorded_;
};

}  // namespace pi0::model
