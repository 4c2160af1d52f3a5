#include "model/pi0.h"

#include <ATen/Context.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "model/masks.h"
#include "model/time_embedding.h"

namespace pi0::model {
namespace {

// Module paths, which are the checkpoint's names.
constexpr const char* vision_tower = "paligemma_with_expert.paligemma.model.vision_tower.vision_model";
constexpr const char* projector = "paligemma_with_expert.paligemma.model.multi_modal_projector.linear";
constexpr const char* language_model = "paligemma_with_expert.paligemma.model.language_model";
constexpr const char* language_head = "paligemma_with_expert.paligemma.lm_head";
constexpr const char* action_expert = "paligemma_with_expert.gemma_expert.model";
constexpr const char* expert_head = "paligemma_with_expert.gemma_expert.lm_head";

RmsNorm::Form expert_norms(const ModelConfig& config) {
  return config.pi05 ? RmsNorm::Form::adaptive : RmsNorm::Form::plain;
}

void keep(Trace* trace, const std::string& name, const Tensor& tensor) {
  if (trace == nullptr || !tensor.defined()) return;
  const auto dtype = tensor.scalar_type() == at::kBool ? at::kBool : at::kFloat;
  trace->emplace(name, tensor.to(at::kCPU, dtype).contiguous());  // keeps the first tensor of each name
}

// Until the end of the scope, each call of the sites joins `calls` calls of the reference.
class JoinedCalls {
 public:
  JoinedCalls(const std::vector<const MatmulSite*>& sites, std::size_t calls) : sites_(sites) {
    for (const MatmulSite* site : sites_) site->calls = static_cast<std::int64_t>(calls);
  }
  ~JoinedCalls() {
    for (const MatmulSite* site : sites_) site->calls = 1;
  }
  JoinedCalls(const JoinedCalls&) = delete;
  JoinedCalls& operator=(const JoinedCalls&) = delete;

 private:
  const std::vector<const MatmulSite*>& sites_;
};

Tensor silu(std::span<const Tensor> in) { return at::silu(in[0]); }

Tensor as_input(const Tensor& image) { return is_pixels(image) ? image_to_input(image) : image; }

}  // namespace

Pi0::Pi0(const ModelConfig& config, WeightSource& weights, Precision precision, const Execution& execution)
    : Pi0(config, BuildContext{weights, precision, execution.device, *execution.backend}, execution) {}

Pi0::Pi0(const ModelConfig& config, const BuildContext& context, Execution execution)
    : config_(config),
      execution_(std::move(execution)),
      vision_(context.add<Siglip>(*this, vision_tower, config.vision)),
      projector_(context.add<Linear>(*this, projector, config.vision.width, config.paligemma.width, Bias::present)),
      language_model_(context.add<Gemma>(*this, language_model, config.paligemma, RmsNorm::Form::plain, Prefills::yes)),
      token_embedding_(context.parameter(*this, std::string(language_model) + ".embed_tokens.weight",
                                         {config.vocab_size, config.paligemma.width})),
      action_expert_(
          context.add<Gemma>(*this, action_expert, config.action_expert, expert_norms(config), Prefills::no)),
      action_in_(
          context.add<Linear>(*this, "action_in_proj", config.action_dim, config.action_expert.width, Bias::present)),
      action_out_(
          context.add<Linear>(*this, "action_out_proj", config.action_expert.width, config.action_dim, Bias::present)),
      state_(config.pi05 ? nullptr
                         : &context.add<Linear>(*this, "state_proj", config.action_dim, config.action_expert.width,
                                                Bias::present)),
      time_mlp_in_(context.add<Linear>(*this, config.pi05 ? "time_mlp_in" : "action_time_mlp_in",
                                       (config.pi05 ? 1 : 2) * config.action_expert.width, config.action_expert.width,
                                       Bias::present)),
      time_mlp_out_(context.add<Linear>(*this, config.pi05 ? "time_mlp_out" : "action_time_mlp_out",
                                        config.action_expert.width, config.action_expert.width, Bias::present)),
      time_in_activation_(context.add<VectorSite>(*this, config.pi05 ? "time_mlp_in.act" : "action_time_mlp_in.act",
                                                  config.action_expert.width)),
      time_out_activation_(config.pi05 ? &context.add<VectorSite>(*this, "time_mlp_out.act", config.action_expert.width)
                                       : nullptr),
      sites_([&] {
        context.add<UnusedHead>(*this, language_head, config.paligemma.width, config.vocab_size);
        context.add<UnusedHead>(*this, expert_head, config.action_expert.width, config.vocab_size);
        return SiteList(*this);
      }()),
      vision_sites_(vision_sites()) {
  if (config.pi05 && execution_.backend->skips_unread()) {
    schedules_ = std::make_unique<ScheduleKeeper>(sites_, modulation_sites(), [this](float time) {
      const Tensor condition = time_condition(at::full({1}, time, at::dtype(at::kFloat).device(device())));
      return action_expert_.modulation(condition);
    });
  }
  if (execution_.recorder) {
    recorded_ = std::make_unique<RecordedRequests>(
        execution_.recorder, sites_, device(),
        [this](Pass& pass, StageSeconds* seconds) { return stages(pass, {.seconds = seconds}); });
  }
  if (device().is_cpu()) return;
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setAllowBF16ReductionCuBLAS(false);
  at::globalContext().setAllowFP16ReductionCuBLAS(false);
}

std::vector<const MatmulSite*> Pi0::vision_sites() const {
  std::vector<const MatmulSite*> found;
  for (const MatmulSite& site : sites_.of_all_kinds()) {
    if (site.component == Component::vision || &site == &projector_) found.push_back(&site);
  }
  return found;
}

std::vector<const MatmulSite*> Pi0::modulation_sites() const {
  std::vector<const MatmulSite*> found;
  for (const MatmulSite& site : sites_.of_all_kinds()) {
    if (site.path.ends_with(".dense") || site.path.starts_with("time_mlp_")) found.push_back(&site);
  }
  return found;
}

bool Pi0::is_in_each_step(const MatmulSite& site, std::int64_t num_steps) const {
  if (site.component != Component::action_expert && site.component != Component::action_head) return false;
  return schedules_ == nullptr || !schedules_->caches(site, num_steps);
}

Pass Pi0::begin(const ModelInputs& inputs, const Tensor& noise, std::int64_t num_steps,
                const SampleOptions& options) const {
  check_inputs(inputs, noise, config_);
  Pass pass;
  pass.in = inputs;
  pass.noise = noise;
  pass.num_steps = num_steps;
  const bool skip = options.masked == MaskedInputs::skip;
  for (std::size_t i = 0; i < inputs.images.size(); ++i) {
    if (!skip || inputs.image_masks[i].any().item<bool>()) pass.cameras.push_back(i);
  }
  pass.prompt_positions = skip ? used_positions(inputs.token_mask) : inputs.tokens.size(1);
  if (schedules_ && options.trace == nullptr) pass.schedule = schedules_->get(num_steps, noise.size(0));
  return pass;
}

void Pi0::embed_images(Pass& pass, Trace* trace) const {
  pass.image_tokens.clear();
  if (pass.cameras.size() > 1 && execution_.backend->batches_cameras() &&
      std::ranges::none_of(vision_sites_, &MatmulSite::needs_each_call)) {
    std::vector<Tensor> images;
    for (const std::size_t camera : pass.cameras) images.push_back(as_input(pass.in.images[camera]));
    const JoinedCalls joined(vision_sites_, images.size());
    pass.image_tokens = projector_(vision_(at::cat(images))).split(pass.noise.size(0));
  } else {
    for (const std::size_t camera : pass.cameras) {
      pass.image_tokens.push_back(projector_(vision_(as_input(pass.in.images[camera]))));
    }
  }
  if (trace != nullptr) keep(trace, "image_features", at::stack(pass.image_tokens));
}

void Pi0::prefill(Pass& pass, Trace* trace) const {
  std::vector<Tensor> tokens = pass.image_tokens, pad_masks;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    pad_masks.push_back(pass.in.image_masks[pass.cameras[i]].unsqueeze(1).expand({-1, tokens[i].size(1)}));
  }
  // Gemma scales the embeddings of text tokens by sqrt(W), but not those of images (pi0_pytorch.py embed_prefix).
  const double scale = std::sqrt(static_cast<double>(config_.paligemma.width));
  tokens.push_back(at::embedding(token_embedding_, pass.in.tokens.narrow(1, 0, pass.prompt_positions)) * scale);
  pad_masks.push_back(pass.in.token_mask.narrow(1, 0, pass.prompt_positions));

  Prefix& prefix = pass.prefix;
  prefix = {at::cat(tokens, 1), at::cat(pad_masks, 1), {}};
  const Tensor one_block = at::zeros({prefix.pad_mask.size(1)}, prefix.pad_mask.options().dtype(at::kInt));
  const Tensor allowed = block_mask(prefix.pad_mask, one_block);
  const Tensor positions = prefix.pad_mask.cumsum(1) - 1;
  prefix.cache = language_model_.prefill(prefix.tokens, additive_mask(allowed), positions);

  keep(trace, "prefix_embeddings", prefix.tokens);
  keep(trace, "prefix_pad_mask", prefix.pad_mask);
  for (const std::size_t i : {std::size_t{0}, prefix.cache.size() - 1}) {
    keep(trace, "prefix_key_layer" + std::to_string(i), prefix.cache[i].key);
    keep(trace, "prefix_value_layer" + std::to_string(i), prefix.cache[i].value);
  }
}

Tensor Pi0::time_condition(const Tensor& time) const {
  if (!config_.pi05) return {};
  const Tensor embedded = time_embedding(time, config_.action_expert.width);
  return (*time_out_activation_)(time_mlp_out_(time_in_activation_(time_mlp_in_(embedded), silu)), silu);
}

// [B, S, W] float32. Pi0.5: the action tokens. Pi0: the state token, then action tokens that an MLP mixes with the
// time. Reference: pi0_pytorch.py embed_suffix.
Tensor Pi0::embed_suffix(const Tensor& state, const Tensor& noisy_actions, const Tensor& time) const {
  const Tensor actions = action_in_(noisy_actions);  // [B, A, W]
  if (config_.pi05) return actions;
  const Tensor embedded_time = time_embedding(time, config_.action_expert.width);  // [B, W]
  const Tensor state_token = (*state_)(state.to(at::kFloat)).unsqueeze(1);
  const Tensor timed = at::cat({actions, embedded_time.unsqueeze(1).expand_as(actions)}, 2);
  return at::cat({state_token, time_mlp_out_(time_in_activation_(time_mlp_in_(timed), silu))}, 1);
}

// Action tokens attend to the prefix, the state token and each other; the state token does not attend to actions.
// Positions continue after the real tokens of the prefix (pi0_pytorch.py denoise_step).
GemmaPass Pi0::begin_suffix(const Prefix& prefix) const {
  const std::int64_t batch = prefix.pad_mask.size(0);
  const std::int64_t action_start = state_ ? 1 : 0, length = action_start + config_.action_horizon;
  const auto options = at::dtype(at::kInt).device(device());
  Tensor block_starts = at::zeros({length}, options);
  block_starts.slice(0, 0, action_start + 1).fill_(1);
  const Tensor own_mask = at::ones({batch, length}, options.dtype(at::kBool));
  const Tensor to_prefix = prefix.pad_mask.unsqueeze(1).expand({-1, length, -1});
  const Tensor allowed = at::cat({to_prefix, block_mask(own_mask, block_starts)}, 2);
  const Tensor positions = prefix.pad_mask.sum(-1, /*keepdim=*/true) + own_mask.cumsum(1) - 1;
  return action_expert_.begin(additive_mask(allowed), positions);
}

Tensor Pi0::denoise_step(const Pass& pass, const GemmaPass& suffix_pass, const Tensor& time,
                         const Modulation* scheduled, Trace* trace) const {
  const Tensor suffix = embed_suffix(pass.in.state, pass.actions, time);
  const Tensor condition = scheduled == nullptr ? time_condition(time) : Tensor{};
  const Modulation own = scheduled == nullptr ? action_expert_.modulation(condition) : Modulation{};
  const Tensor output =
      action_expert_.decode(suffix, suffix_pass, scheduled == nullptr ? own : *scheduled, pass.prefix.cache);
  keep(trace, "suffix_embeddings_step0", suffix);
  keep(trace, "adarms_cond_step0", condition);
  keep(trace, "expert_output_step0", output);
  return action_out_(output.slice(1, suffix.size(1) - config_.action_horizon).to(at::kFloat));
}

void Pi0::denoise(Pass& pass, const SampleOptions& options) const {
  const auto dt = static_cast<float>(-1.0 / static_cast<double>(pass.num_steps));
  const std::vector<float> times = flow_times(pass.num_steps);
  std::vector<Tensor> velocities;
  pass.actions = with_held(pass.in.continuation, pass.noise);
  const GemmaPass suffix_pass = begin_suffix(pass.prefix);
  Stopwatch watch(device());
  for (std::size_t step = 0; step < times.size(); ++step) {
    const Tensor time = at::full({pass.noise.size(0)}, times[step], pass.noise.options());
    const Tensor own =
        denoise_step(pass, suffix_pass, time, pass.schedule ? &pass.schedule->steps[step] : nullptr, options.trace);
    const Tensor velocity = guided(pass.in.continuation, pass.actions, own, times[step], pass.num_steps);
    if (options.trace != nullptr || options.velocity != nullptr) velocities.push_back(velocity);
    pass.actions = pass.actions + velocity * dt;
    if (options.seconds != nullptr) options.seconds->denoise.push_back(watch.lap());
  }
  if (options.trace != nullptr) keep(options.trace, "velocity", at::stack(velocities));
  if (options.velocity != nullptr) *options.velocity = at::stack(velocities).to(at::kFloat).cpu();
}

Stages Pi0::stages(Pass& pass, const SampleOptions& options) const {
  return {[this, &pass, options] { embed_images(pass, options.trace); },
          [this, &pass, options] { prefill(pass, options.trace); }, [this, &pass, options] { denoise(pass, options); }};
}

Tensor Pi0::sample_actions(const ModelInputs& inputs, const Tensor& noise, std::int64_t num_steps,
                           const SampleOptions& options) const {
  const c10::InferenceMode inference;
  const c10::DeviceGuard guard(device());
  Pass pass = begin(inputs, noise, num_steps, options);
  if (recorded_ && options.trace == nullptr && options.velocity == nullptr)
    return recorded_->sample(std::move(pass), options.seconds);
  move_to(pass, device());
  run(stages(pass, options), device(), options.seconds);
  return pass.actions;
}

}  // namespace pi0::model
