#include "model/pi0.h"

#include <c10/core/InferenceMode.h>

#include <chrono>
#include <cmath>
#include <stdexcept>

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

void check(const Tensor& tensor, const std::string& name, at::IntArrayRef shape, bool right_dtype,
           const char* dtype) {
  if (tensor.defined() && tensor.sizes() == shape && right_dtype) return;
  throw std::invalid_argument(
      tensor.defined() ? c10::str(name, ": found ", tensor.scalar_type(), " ", tensor.sizes(),
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

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

Tensor image_to_input(const Tensor& pixels) {
  return pixels.to(at::kFloat).permute({0, 3, 1, 2}) / 255.0 * 2.0 - 1.0;
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

Pi0::Pi0(const ModelConfig& config, WeightSource& weights, Precision precision, at::Device device,
         const GemmKernels* gemm)
    : Pi0(config, BuildContext{weights, sites_, precision, device, gemm}) {}

Pi0::Pi0(const ModelConfig& config, BuildContext context)
    : config_(config),
      device_(context.device),
      token_embedding_(context.parameter(std::string(language_model) + ".embed_tokens.weight",
                                         {config.vocab_size, config.paligemma.width})),
      vision_(context, vision_tower, config.vision),
      projector_(context, projector, config.vision.width, config.paligemma.width, Bias::present),
      language_model_(context, language_model, config.paligemma, RmsNorm::Form::plain),
      language_head_(context, language_head, config.paligemma.width, config.vocab_size),
      action_expert_(context, action_expert, config.action_expert, expert_norms(config)),
      expert_head_(context, expert_head, config.action_expert.width, config.vocab_size),
      action_in_(context, "action_in_proj", config.action_dim, config.action_expert.width,
                 Bias::present),
      action_out_(context, "action_out_proj", config.action_expert.width, config.action_dim,
                  Bias::present),
      state_(config.pi05 ? std::nullopt
                         : std::optional<Linear>(std::in_place, context, "state_proj",
                                                 config.action_dim, config.action_expert.width,
                                                 Bias::present)),
      time_mlp_in_(context, config.pi05 ? "time_mlp_in" : "action_time_mlp_in",
                   (config.pi05 ? 1 : 2) * config.action_expert.width, config.action_expert.width,
                   Bias::present),
      time_mlp_out_(context, config.pi05 ? "time_mlp_out" : "action_time_mlp_out",
                    config.action_expert.width, config.action_expert.width, Bias::present),
      keep_schedule_(config.pi05 && context.gemm != nullptr) {}

ModelInputs Pi0::checked(const ModelInputs& in, const Tensor& noise) const {
  const std::int64_t batch = noise.defined() && noise.dim() > 0 ? noise.size(0) : 1;
  const std::int64_t size = config_.vision.image_size;
  check(noise, "noise", {batch, config_.action_horizon, config_.action_dim},
        noise.defined() && noise.scalar_type() == at::kFloat, "float32");
  if (in.images.empty() || in.images.size() != in.image_masks.size()) {
    throw std::invalid_argument(c10::str("images: found ", in.images.size(), " and ",
                                         in.image_masks.size(), " masks, expected as many of both"));
  }
  ModelInputs out;
  for (std::size_t i = 0; i < in.images.size(); ++i) {
    const Tensor &image = in.images[i], &mask = in.image_masks[i];
    check(image, c10::str("image ", i), {batch, 3, size, size},
          image.defined() && image.scalar_type() == at::kFloat, "float32");
    check(mask, c10::str("image mask ", i), {batch},
          mask.defined() && mask.scalar_type() == at::kBool, "bool");
    out.images.push_back(image.to(device_));
    out.image_masks.push_back(mask.to(device_));
  }
  const std::int64_t places = in.tokens.defined() && in.tokens.dim() == 2 ? in.tokens.size(1) : 1;
  check(in.tokens, "tokens", {batch, places},
        in.tokens.defined() && at::isIntegralType(in.tokens.scalar_type(), false), "integer");
  check(in.token_mask, "token_mask", {batch, places},
        in.token_mask.defined() && in.token_mask.scalar_type() == at::kBool, "bool");
  check(in.state, "state", {batch, config_.action_dim},
        in.state.defined() && in.state.is_floating_point(), "floating");
  const Tensor bad = (in.tokens < 0) | (in.tokens >= config_.vocab_size);
  if (bad.any().item<bool>()) {
    throw std::invalid_argument(
        c10::str("tokens: found ", in.tokens.masked_select(bad)[0].item<std::int64_t>(),
                 ", expected 0 to ", config_.vocab_size - 1));
  }
  out.tokens = in.tokens.to(device_);
  out.token_mask = in.token_mask.to(device_);
  out.state = in.state.to(device_);
  return out;
}

Pi0::Prefix Pi0::embed_prefix(const ModelInputs& in, const SampleOptions& options) const {
  const Stopwatch vision_watch;
  std::vector<Tensor> tokens, pad_masks;
  for (std::size_t i = 0; i < in.images.size(); ++i) {
    if (options.masked == MaskedInputs::skip && !in.image_masks[i].any().item<bool>()) continue;
    tokens.push_back(projector_(vision_(in.images[i])));
    pad_masks.push_back(in.image_masks[i].unsqueeze(1).expand({-1, tokens.back().size(1)}));
  }
  if (options.trace != nullptr) keep(options.trace, "image_features", at::stack(tokens));
  if (options.seconds != nullptr) options.seconds->vision = vision_watch.seconds();

  const Stopwatch prefix_watch;
  const std::int64_t places =
      options.masked == MaskedInputs::skip ? used_places(in.token_mask) : in.tokens.size(1);
  const double scale = std::sqrt(static_cast<double>(config_.paligemma.width));
  tokens.push_back(at::embedding(token_embedding_, in.tokens.narrow(1, 0, places)) * scale);
  pad_masks.push_back(in.token_mask.narrow(1, 0, places));

  Prefix prefix{at::cat(tokens, 1), at::cat(pad_masks, 1), {}};
  const Tensor one_block = at::zeros({prefix.pad_mask.size(1)}, prefix.pad_mask.options().dtype(at::kInt));
  const Tensor allowed = block_mask(prefix.pad_mask, one_block);
  const Tensor positions = prefix.pad_mask.cumsum(1) - 1;
  prefix.cache = language_model_.prefill(prefix.tokens, additive_mask(allowed), positions);
  if (options.seconds != nullptr) options.seconds->prefix = prefix_watch.seconds();

  keep(options.trace, "prefix_embeddings", prefix.tokens);
  keep(options.trace, "prefix_pad_mask", prefix.pad_mask);
  for (const std::size_t i : {std::size_t{0}, prefix.cache.size() - 1}) {
    keep(options.trace, "prefix_key_layer" + std::to_string(i), prefix.cache[i].key);
    keep(options.trace, "prefix_value_layer" + std::to_string(i), prefix.cache[i].value);
  }
  return prefix;
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

Tensor Pi0::denoise_step(const Tensor& state, const Prefix& prefix, const Tensor& noisy_actions,
                         const Tensor& time, const Modulation* scheduled, Trace* trace) const {
  const std::int64_t batch = noisy_actions.size(0);
  const Tensor suffix = embed_suffix(state, noisy_actions, time);
  const Tensor condition = scheduled == nullptr ? time_condition(time) : Tensor{};
  const Modulation own = scheduled == nullptr ? action_expert_.modulation(condition) : Modulation{};

  // Actions see the prefix, the state and each other; the state does not see them.
  const std::int64_t length = suffix.size(1), action_start = length - config_.action_horizon;
  const auto options = at::dtype(at::kInt).device(device_);
  Tensor block_starts = at::zeros({length}, options);
  block_starts.slice(0, 0, action_start + 1).fill_(1);
  const Tensor own_mask = at::ones({batch, length}, options.dtype(at::kBool));
  const Tensor to_prefix = prefix.pad_mask.unsqueeze(1).expand({-1, length, -1});
  const Tensor allowed = at::cat({to_prefix, block_mask(own_mask, block_starts)}, 2);
  const Tensor positions = prefix.pad_mask.sum(-1, /*keepdim=*/true) + own_mask.cumsum(1) - 1;

  const Tensor output = action_expert_.decode(suffix, additive_mask(allowed), positions,
                                              scheduled == nullptr ? own : *scheduled, prefix.cache);
  keep(trace, "suffix_embeddings_step0", suffix);
  keep(trace, "adarms_cond_step0", condition);
  keep(trace, "expert_output_step0", output);
  return action_out_(output.slice(1, action_start).to(at::kFloat));
}

const Pi0::Schedule* Pi0::schedule(std::int64_t num_steps, Trace* trace) const {
  constexpr std::int64_t most_steps = 100;  // kept: half a megabyte each
  if (!keep_schedule_ || trace != nullptr || num_steps > most_steps || modulation_is_observed()) {
    return nullptr;
  }
  if (schedule_.num_steps != num_steps || schedule_.hook_changes != sites_.hook_changes()) {
    schedule_ = {num_steps, sites_.hook_changes(), {}};
    for (const float time : flow_times(num_steps)) {
      schedule_.steps.push_back(
          action_expert_.modulation(time_condition(at::full({1}, time, at::dtype(at::kFloat).device(device_)))));
    }
  }
  return &schedule_;
}

bool Pi0::modulation_is_observed() const {
  return time_mlp_in_.is_observed() || time_mlp_out_.is_observed() ||
         action_expert_.modulation_is_observed();
}

Tensor Pi0::sample_actions(const ModelInputs& inputs, const Tensor& noise, std::int64_t num_steps,
                           const SampleOptions& options) const {
  const c10::InferenceMode inference;
  const ModelInputs in = checked(inputs, noise);
  const Prefix prefix = embed_prefix(in, options);
  Tensor actions = noise.to(device_);
  std::vector<Tensor> velocities;
  const auto dt = static_cast<float>(-1.0 / static_cast<double>(num_steps));
  const Schedule* const scheduled = schedule(num_steps, options.trace);
  const std::vector<float> times = flow_times(num_steps);
  for (std::size_t step = 0; step < times.size(); ++step) {
    const Stopwatch watch;
    const Tensor time = at::full({noise.size(0)}, times[step], actions.options());
    const Tensor velocity =
        denoise_step(in.state, prefix, actions, time,
                     scheduled != nullptr ? &scheduled->steps[step] : nullptr, options.trace);
    if (options.trace != nullptr) velocities.push_back(velocity);
    actions = actions + velocity * dt;
    if (options.seconds != nullptr) options.seconds->denoise.push_back(watch.seconds());
  }
  if (options.trace != nullptr) keep(options.trace, "velocity", at::stack(velocities));
  return actions;
}

}  // namespace pi0::model
