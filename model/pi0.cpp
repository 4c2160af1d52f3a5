#include "model/pi0.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>
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

void check(const Tensor& tensor, const std::string& name, at::IntArrayRef shape, bool right_dtype, const char* dtype) {
  if (tensor.defined() && tensor.sizes() == shape && right_dtype) return;
  throw std::invalid_argument(tensor.defined() ? c10::str(name, ": found ", tensor.scalar_type(), " ", tensor.sizes(),
                                                          ", expected ", dtype, " ", shape)
                                               : c10::str(name, ": missing, expected ", dtype, " ", shape));
}

void keep(Trace* trace, const std::string& name, const Tensor& tensor) {
  if (trace == nullptr || !tensor.defined()) return;
  const auto dtype = tensor.scalar_type() == at::kBool ? at::kBool : at::kFloat;
  trace->emplace(name, tensor.to(at::kCPU, dtype).contiguous());  // the first call of a name stays
}

// From 1 to 0, accumulated in float32 as the reference does; 1 + step * dt differs in the last bits.
std::vector<float> flow_times(std::int64_t num_steps) {
  const auto dt = static_cast<float>(-1.0 / static_cast<double>(num_steps));
  std::vector<float> times;
  for (float time = 1.0F; time >= -dt / 2; time += dt) times.push_back(time);
  return times;
}

// One past the last prompt place that any sample uses; at least one.
std::int64_t used_places(const Tensor& token_mask) {
  const Tensor used = token_mask.any(0).nonzero();  // [count, 1]
  return used.size(0) == 0 ? 1 : used[-1].item<std::int64_t>() + 1;
}

// A device works on after its functions have returned.
void wait_for(at::Device device) {
  if (!device.is_cpu()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

class Stopwatch {
 public:
  explicit Stopwatch(at::Device device) : device_(device) {}

  // Since the last lap, or the beginning.
  double lap() {
    wait_for(device_);
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(start_, now)).count();
  }

 private:
  const at::Device device_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

bool is_pixels(const Tensor& image) { return image.defined() && image.scalar_type() == at::kByte; }

// Sites whose calls stand for several of the reference's, until the scope ends.
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

Tensor as_input(const Tensor& image) { return is_pixels(image) ? image_to_input(image) : image; }

}  // namespace

Tensor image_to_input(const Tensor& pixels) {
  // By a tensor: instead of dividing by a number, a GPU multiplies by its reciprocal, which is another last bit.
  const Tensor most = at::full({}, 255.0, pixels.options().dtype(at::kFloat));
  return pixels.to(at::kFloat).permute({0, 3, 1, 2}) / most * 2.0 - 1.0;
}

ModelInputs joined(std::span<const ModelInputs> samples) {
  if (samples.size() == 1) return samples.front();
  const auto join = [&](const auto& part) {
    std::vector<Tensor> parts;
    for (const ModelInputs& sample : samples) parts.push_back(part(sample));
    return at::cat(parts);
  };
  ModelInputs batch;
  for (std::size_t i = 0; i < samples.front().images.size(); ++i) {
    batch.images.push_back(join([i](const ModelInputs& s) { return s.images[i]; }));
    batch.image_masks.push_back(join([i](const ModelInputs& s) { return s.image_masks[i]; }));
  }
  batch.tokens = join([](const ModelInputs& s) { return s.tokens; });
  batch.token_mask = join([](const ModelInputs& s) { return s.token_mask; });
  batch.state = join([](const ModelInputs& s) { return s.state; });
  return batch;
}

Pi0::UnusedHead::UnusedHead(BuildContext& context, const std::string& path, std::int64_t width,
                            std::int64_t vocab_size) {
  context.sites.add(path, SiteKind::linear, width, vocab_size);
  context.weights.pass_over(path + ".weight", {vocab_size, width});
}

Pi0::Pi0(const ModelConfig& config, WeightSource& weights, Precision precision, const Execution& execution)
    : Pi0(config, BuildContext{weights, sites_, precision, execution}) {}

Pi0::Pi0(const ModelConfig& config, BuildContext context)
    : config_(config),
      device_(context.execution.device),
      sites_(context.execution),
      token_embedding_(context.parameter(std::string(language_model) + ".embed_tokens.weight",
                                         {config.vocab_size, config.paligemma.width})),
      vision_(context, vision_tower, config.vision),
      projector_(context, projector, config.vision.width, config.paligemma.width, Bias::present),
      language_model_(context, language_model, config.paligemma, RmsNorm::Form::plain),
      language_head_(context, language_head, config.paligemma.width, config.vocab_size),
      action_expert_(context, action_expert, config.action_expert, expert_norms(config)),
      expert_head_(context, expert_head, config.action_expert.width, config.vocab_size),
      action_in_(context, "action_in_proj", config.action_dim, config.action_expert.width, Bias::present),
      action_out_(context, "action_out_proj", config.action_expert.width, config.action_dim, Bias::present),
      state_(config.pi05 ? std::nullopt
                         : std::optional<Linear>(std::in_place, context, "state_proj", config.action_dim,
                                                 config.action_expert.width, Bias::present)),
      time_mlp_in_(context, config.pi05 ? "time_mlp_in" : "action_time_mlp_in",
                   (config.pi05 ? 1 : 2) * config.action_expert.width, config.action_expert.width, Bias::present),
      time_mlp_out_(context, config.pi05 ? "time_mlp_out" : "action_time_mlp_out", config.action_expert.width,
                    config.action_expert.width, Bias::present),
      keep_schedule_(config.pi05 && context.execution.kernels == Kernels::fast) {
  for (const MatmulSite& site : sites_.all()) {
    if (site.component == Component::vision || site.path == projector) vision_sites_.push_back(&site);
    if (site.path.ends_with(".dense") || site.path.starts_with("time_mlp_")) modulation_sites_.push_back(&site);
  }
  if (device_.is_cpu()) return;
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setAllowBF16ReductionCuBLAS(false);
  at::globalContext().setAllowFP16ReductionCuBLAS(false);
}

void Pi0::check_inputs(const ModelInputs& in, const Tensor& noise) const {
  const std::int64_t batch = noise.defined() && noise.dim() > 0 ? noise.size(0) : 1;
  const std::int64_t size = config_.vision.image_size;
  check(noise, "noise", {batch, config_.action_horizon, config_.action_dim},
        noise.defined() && noise.scalar_type() == at::kFloat, "float32");
  if (in.images.empty() || in.images.size() != in.image_masks.size()) {
    throw std::invalid_argument(c10::str("images: found ", in.images.size(), " and ", in.image_masks.size(),
                                         " masks, expected as many of both"));
  }
  for (std::size_t i = 0; i < in.images.size(); ++i) {
    const Tensor &image = in.images[i], &mask = in.image_masks[i];
    if (!is_pixels(image) || image.sizes() != at::IntArrayRef{batch, size, size, 3}) {
      check(image, c10::str("image ", i), {batch, 3, size, size}, image.defined() && image.scalar_type() == at::kFloat,
            "float32");
    }
    check(mask, c10::str("image mask ", i), {batch}, mask.defined() && mask.scalar_type() == at::kBool, "bool");
  }
  const std::int64_t places = in.tokens.defined() && in.tokens.dim() == 2 ? in.tokens.size(1) : 1;
  check(in.tokens, "tokens", {batch, places}, in.tokens.defined() && at::isIntegralType(in.tokens.scalar_type(), false),
        "integer");
  check(in.token_mask, "token_mask", {batch, places},
        in.token_mask.defined() && in.token_mask.scalar_type() == at::kBool, "bool");
  check(in.state, "state", {batch, config_.action_dim}, in.state.defined() && in.state.is_floating_point(), "floating");
  const Tensor bad = (in.tokens < 0) | (in.tokens >= config_.vocab_size);
  if (bad.any().item<bool>()) {
    throw std::invalid_argument(c10::str("tokens: found ", in.tokens.masked_select(bad)[0].item<std::int64_t>(),
                                         ", expected 0 to ", config_.vocab_size - 1));
  }
}

Pi0::Pass Pi0::begin(const ModelInputs& inputs, const Tensor& noise, std::int64_t num_steps,
                     const SampleOptions& options) const {
  check_inputs(inputs, noise);
  Pass pass;
  pass.in = inputs;
  pass.noise = noise;
  pass.num_steps = num_steps;
  const bool skip = options.masked == MaskedInputs::skip;
  for (std::size_t i = 0; i < inputs.images.size(); ++i) {
    if (!skip || inputs.image_masks[i].any().item<bool>()) pass.cameras.push_back(i);
  }
  pass.places = skip ? used_places(inputs.token_mask) : inputs.tokens.size(1);
  pass.schedule = schedule(num_steps, noise.size(0), options.trace);
  return pass;
}

// The tensors that stages read: of cameras that are not computed there are none.
std::vector<Tensor*> Pi0::inputs_of(Pass& pass) {
  std::vector<Tensor*> inputs = {&pass.in.tokens, &pass.in.token_mask, &pass.in.state, &pass.noise};
  for (const std::size_t camera : pass.cameras) {
    inputs.push_back(&pass.in.images[camera]);
    inputs.push_back(&pass.in.image_masks[camera]);
  }
  return inputs;
}

void Pi0::move_to_device(Pass& pass) const {
  for (Tensor* input : inputs_of(pass)) *input = input->to(device_);
}

void Pi0::embed_images(Pass& pass, Trace* trace) const {
  pass.image_tokens.clear();
  if (pass.cameras.size() > 1 && sites_.backend().batches_cameras() &&
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
  const double scale = std::sqrt(static_cast<double>(config_.paligemma.width));
  tokens.push_back(at::embedding(token_embedding_, pass.in.tokens.narrow(1, 0, pass.places)) * scale);
  pad_masks.push_back(pass.in.token_mask.narrow(1, 0, pass.places));

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
  return at::silu(time_mlp_out_(at::silu(time_mlp_in_(embedded))));
}

// [B, S, W] float32: actions, in Pi0 after the state and with the time in them.
Tensor Pi0::embed_suffix(const Tensor& state, const Tensor& noisy_actions, const Tensor& time) const {
  const Tensor actions = action_in_(noisy_actions);  // [B, A, W]
  if (config_.pi05) return actions;
  const Tensor embedded_time = time_embedding(time, config_.action_expert.width);  // [B, W]
  const Tensor state_token = (*state_)(state.to(at::kFloat)).unsqueeze(1);
  const Tensor timed = at::cat({actions, embedded_time.unsqueeze(1).expand_as(actions)}, 2);
  return at::cat({state_token, time_mlp_out_(at::silu(time_mlp_in_(timed)))}, 1);
}

// Actions see the prefix, the state and each other; the state does not see them.
GemmaPass Pi0::begin_suffix(const Prefix& prefix) const {
  const std::int64_t batch = prefix.pad_mask.size(0);
  const std::int64_t action_start = state_ ? 1 : 0, length = action_start + config_.action_horizon;
  const auto options = at::dtype(at::kInt).device(device_);
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

std::shared_ptr<const Pi0::Schedule> Pi0::schedule(std::int64_t num_steps, std::int64_t batch, Trace* trace) const {
  constexpr std::int64_t most_steps = 100;  // kept: half a megabyte each
  if (!keep_schedule_ || trace != nullptr || num_steps > most_steps ||
      std::ranges::any_of(modulation_sites_, &MatmulSite::needs_each_call)) {
    return nullptr;
  }
  const bool observed = std::ranges::any_of(modulation_sites_, &MatmulSite::is_observed);
  if (schedule_ && schedule_->num_steps == num_steps && schedule_->hook_changes == sites_.hook_changes() &&
      (schedule_->observed || !observed)) {
    for (const MatmulSite* site : modulation_sites_) {
      if (site->is_observed()) site->hook->repeat_observed(batch);
    }
    return schedule_;
  }
  schedule_ = nullptr;  // what hooks keep from now on is not of it
  for (const MatmulSite* site : modulation_sites_) {
    if (!site->is_observed()) continue;
    site->hook->keep_observed();
    site->hook->repeat_observed(batch);  // for all samples but the one that is observed now
  }
  Schedule made{num_steps, sites_.hook_changes(), observed, {}};
  for (const float time : flow_times(num_steps)) {
    made.steps.push_back(
        action_expert_.modulation(time_condition(at::full({1}, time, at::dtype(at::kFloat).device(device_)))));
  }
  schedule_ = std::make_shared<const Schedule>(std::move(made));
  return schedule_;
}

void Pi0::denoise(Pass& pass, const SampleOptions& options) const {
  const auto dt = static_cast<float>(-1.0 / static_cast<double>(pass.num_steps));
  const std::vector<float> times = flow_times(pass.num_steps);
  std::vector<Tensor> velocities;
  pass.actions = pass.noise;
  const GemmaPass suffix_pass = begin_suffix(pass.prefix);
  Stopwatch watch(device_);
  for (std::size_t step = 0; step < times.size(); ++step) {
    const Tensor time = at::full({pass.noise.size(0)}, times[step], pass.noise.options());
    const Tensor velocity =
        denoise_step(pass, suffix_pass, time, pass.schedule ? &pass.schedule->steps[step] : nullptr, options.trace);
    if (options.trace != nullptr) velocities.push_back(velocity);
    pass.actions = pass.actions + velocity * dt;
    if (options.seconds != nullptr) options.seconds->denoise.push_back(watch.lap());
  }
  if (options.trace != nullptr) keep(options.trace, "velocity", at::stack(velocities));
}

Pi0::Stages Pi0::stages(Pass& pass, const SampleOptions& options) const {
  return {[this, &pass, options] { embed_images(pass, options.trace); },
          [this, &pass, options] { prefill(pass, options.trace); }, [this, &pass, options] { denoise(pass, options); }};
}

void Pi0::run(const Stages& stages, StageSeconds* seconds) const {
  if (seconds == nullptr) {
    for (const Recorder::Work& stage : stages) stage();
    return;
  }
  Stopwatch watch(device_);
  stages[0]();
  seconds->vision = watch.lap();
  stages[1]();
  seconds->prefix = watch.lap();
  stages[2]();
}

Tensor Pi0::sample_actions(const ModelInputs& inputs, const Tensor& noise, std::int64_t num_steps,
                           const SampleOptions& options) const {
  const c10::InferenceMode inference;
  const c10::DeviceGuard guard(device_);
  Pass pass = begin(inputs, noise, num_steps, options);
  if (sites_.execution().recorder && options.trace == nullptr) return sample_recorded(std::move(pass), options);
  move_to_device(pass);
  run(stages(pass, options), options.seconds);
  return pass.actions;
}

std::vector<std::int64_t> Pi0::kind_of(const Pass& pass) const {
  const bool observed = std::ranges::any_of(sites_.all(), [](const MatmulSite& site) { return site.is_observed(); });
  std::vector<std::int64_t> kind = {sites_.hook_changes(),
                                    observed,
                                    pass.num_steps,
                                    pass.noise.size(0),
                                    pass.places,
                                    pass.in.tokens.size(1),
                                    static_cast<std::int64_t>(pass.in.images.size())};
  kind.insert(kind.end(), pass.cameras.begin(), pass.cameras.end());
  for (const Tensor& image : pass.in.images) kind.push_back(is_pixels(image) ? 1 : 0);
  return kind;
}

// The first request of a kind runs as any, and sets up what libraries set up when they are first called; the second
// one is recorded.
Tensor Pi0::sample_recorded(Pass pass, const SampleOptions& options) const {
  constexpr std::size_t most_recordings = 8;  // each holds a request's tensors
  const std::vector<std::int64_t> kind = kind_of(pass);
  recordings_.remove_if([&](const Recording& known) { return known.kind[0] != kind[0]; });
  const auto known = std::ranges::find(recordings_, kind, &Recording::kind);
  if (known == recordings_.end()) {
    move_to_device(pass);
    run(stages(pass, options), options.seconds);
    recordings_.push_front({kind});
    if (recordings_.size() > most_recordings) recordings_.pop_back();
    return pass.actions;
  }
  recordings_.splice(recordings_.begin(), recordings_, known);
  Recording& recording = recordings_.front();
  if (recording.stages.empty()) {
    try {
      record(recording, pass);
    } catch (const std::exception&) {  // a recording needs memory of its own, which a plain run may do without
      recordings_.clear();
      move_to_device(pass);
      run(stages(pass, options), options.seconds);
      return pass.actions;
    }
  } else {
    const std::vector<Tensor*> to = inputs_of(recording.pass), from = inputs_of(pass);
    for (std::size_t i = 0; i < to.size(); ++i) to[i]->copy_(*from[i], /*non_blocking=*/true);
  }
  Stopwatch watch(device_);
  run(recording.stages, options.seconds);
  if (options.seconds != nullptr) {
    const double denoise = watch.lap() - options.seconds->vision - options.seconds->prefix;
    options.seconds->denoise.assign(flow_times(pass.num_steps).size(), denoise / static_cast<double>(pass.num_steps));
  }
  std::size_t index = 0;
  for (const MatmulSite& site : sites_.all()) site.flop += recording.flop[index++];
  return recording.pass.actions.clone();
}

void Pi0::record(Recording& recording, const Pass& pass) const {
  recording.pass = pass;
  for (Tensor* input : inputs_of(recording.pass)) *input = input->to(device_, /*non_blocking=*/false, /*copy=*/true);
  std::vector<std::int64_t> before;
  for (const MatmulSite& site : sites_.all()) before.push_back(site.flop);
  const auto take_flop = [&] {
    recording.flop.clear();
    for (const MatmulSite& site : sites_.all()) {
      const std::int64_t known = before[recording.flop.size()];
      recording.flop.push_back(std::exchange(site.flop, known) - known);
    }
  };
  try {
    recording.stages = sites_.execution().recorder->record(stages(recording.pass, {}));
  } catch (...) {
    take_flop();
    throw;
  }
  take_flop();
}

}  // namespace pi0::model
