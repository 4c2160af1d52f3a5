#include "model/policy/policy.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <span>
#include <stdexcept>
#include <utility>

#include "model/policy/aloha_units.h"
#include "model/policy/image_resize.h"
#include "protocol/openpi_messages.h"

namespace pi0::policy {
namespace {

constexpr std::int64_t image_size = 224;  // pixels, both sides: what SigLIP was trained on

bool has_image(const Camera& camera) { return camera.image || camera.levels; }

// Pixels [1, 224, 224, 3] uint8, or with Resize::lerobot [1, 3, 224, 224] float32 in [-1, 1].
at::Tensor image_input(const Camera& camera, const PolicyConfig& config) {
  if (!has_image(camera)) {
    return config.resize == Resize::lerobot ? at::full({1, 3, image_size, image_size}, -1.0, at::kFloat)
                                            : at::zeros({1, image_size, image_size, 3}, at::kByte);
  }
  try {
    if (camera.levels) return lerobot_input(*camera.levels, image_size, image_size, config.padding);
    Image fitted = resize_with_pad(*camera.image, image_size, image_size);
    return at::from_blob(fitted.pixels.data(), {1, image_size, image_size, 3}, at::kByte).clone();
  } catch (const std::invalid_argument& error) {
    throw RequestError(camera.input + ": " + error.what());
  }
}

// A normalised action's magnitude that none of a policy's own has: those are about 1.
constexpr double far_from_actions = 10;

// Whether a reply has an error; then all have it.
bool share_first_error(std::vector<Reply>& replies) {
  const auto first = std::ranges::find_if(replies, [](const Reply& reply) { return reply.error != nullptr; });
  if (first == replies.end()) return false;
  std::exception_ptr shared = first->error;
  try {
    std::rethrow_exception(shared);
  } catch (const RequestError& error) {
    const std::string place = "batch[" + std::to_string(first - replies.begin()) + "]: ";
    shared = std::make_exception_ptr(RequestError(place + error.what()));
  } catch (const std::exception&) {
  }
  for (Reply& reply : replies) reply.error = shared;
  return true;
}

template <class Number>
std::span<const Number> values_of(const at::Tensor& contiguous) {
  return {contiguous.const_data_ptr<Number>(), static_cast<std::size_t>(contiguous.numel())};
}

}  // namespace

protocol::NdArray noise_field(const at::Tensor& noise) {
  protocol::NdArray field{{'f', 4}, noise.sizes().vec(), {}};
  field.data.resize(noise.nbytes());
  std::memcpy(field.data.data(), noise.contiguous().const_data_ptr(), noise.nbytes());
  return field;
}

Policy::Policy(PolicyConfig config, const NormStats& norm_stats, PromptTokenizer tokenizer,
               SampleActions sample_actions, PolicyOptions options)
    : config_(std::move(config)),
      normalizer_(config_.normalization, norm_stats, config_.robot.state_size(), config_.robot.action_size,
                  config_.action_dim),
      tokenizer_(std::move(tokenizer)),
      sample_actions_(std::move(sample_actions)),
      options_(std::move(options)),
      generator_(at::detail::createCPUGenerator(options_.seed)) {}

protocol::Dict Policy::infer(const protocol::Dict& request, protocol::NdArray* noise_used) {
  Reply reply = std::move(infer_together({&request, 1}).front());
  if (reply.error) std::rethrow_exception(reply.error);
  if (noise_used != nullptr) *noise_used = std::move(reply.noise);
  return std::move(reply.answer);
}

std::vector<Reply> Policy::infer_together(std::span<const protocol::Dict> requests, const CallObserver& observer) {
  std::vector<Reply> replies(requests.size());
  answer_all(samples_of(requests, observer, replies), observer, replies);
  return replies;
}

std::vector<Reply> Policy::infer_batch(std::span<const protocol::Dict> requests, const CallObserver& observer) {
  std::vector<Reply> replies(requests.size());
  std::vector<Sample> samples = samples_of(requests, observer, replies);
  if (share_first_error(replies)) return replies;
  answer_all(std::move(samples), observer, replies);
  share_first_error(replies);
  return replies;
}

std::vector<Policy::Sample> Policy::samples_of(std::span<const protocol::Dict> requests, const CallObserver& observer,
                                               std::vector<Reply>& replies) {
  std::vector<Sample> samples;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    try {
      const bool measured = !observer.measured.empty() && observer.measured[i];
      samples.push_back({i, measured, prepare(requests[i]), noise_for(requests[i])});
      replies[i].noise = noise_field(samples.back().noise[0]);
      observer.saw_state(values_of<double>(samples.back().inputs.state));
    } catch (const std::exception&) {
      replies[i].error = std::current_exception();
    }
  }
  return samples;
}

// Calls the model for as many samples at once as can share a call.
void Policy::answer_all(std::vector<Sample> waiting, const CallObserver& observer, std::vector<Reply>& replies) const {
  while (!waiting.empty()) {
    const Sample first = waiting.front();
    const auto rest = std::stable_partition(waiting.begin(), waiting.end(),
                                            [&](const Sample& sample) { return share_a_call(first, sample); });
    observer.run(first.measured, [&] { return answer({waiting.begin(), rest}, replies); });
    waiting.erase(waiting.begin(), rest);
  }
}

ImageValues Policy::image_values() const {
  if (config_.resize == Resize::lerobot) return ImageValues::floats;
  return options_.allow_image_wrap ? ImageValues::wrapped_bytes : ImageValues::bytes;
}

// A model that skips masked inputs skips those of the whole call, so both samples must have the same masks.
bool Policy::share_a_call(const Sample& a, const Sample& b) const {
  if (a.measured != b.measured) return false;
  return options_.masked == model::MaskedInputs::keep ||
         (at::equal(a.inputs.token_mask, b.inputs.token_mask) &&
          std::ranges::equal(a.inputs.image_masks, b.inputs.image_masks, at::equal));
}

// Calls the model once. Returns which samples were answered.
std::vector<bool> Policy::answer(std::span<const Sample> samples, std::vector<Reply>& replies) const {
  std::vector<bool> answered(samples.size());
  at::Tensor chunks;
  std::chrono::duration<double, std::milli> infer_ms{};
  try {
    std::vector<model::ModelInputs> inputs;
    std::vector<at::Tensor> noises;
    for (const Sample& sample : samples) {
      inputs.push_back(sample.inputs);
      noises.push_back(sample.noise);
    }
    const model::ModelInputs batch = model::joined(inputs);
    const at::Tensor noise = samples.size() == 1 ? noises.front() : at::cat(noises);
    const auto start = std::chrono::steady_clock::now();
    chunks = sample_actions_(batch, noise, options_.num_steps);
    infer_ms = std::chrono::steady_clock::now() - start;
    if (chunks.size(0) != static_cast<std::int64_t>(samples.size())) {
      throw std::runtime_error("the model returned actions of another number of samples than it was given");
    }
  } catch (const std::exception&) {
    for (const Sample& sample : samples) replies[sample.request].error = std::current_exception();
    return answered;
  }
  for (std::size_t i = 0; i < samples.size(); ++i) {
    Reply& reply = replies[samples[i].request];
    try {
      reply.answer = finish(chunks.narrow(0, static_cast<std::int64_t>(i), 1), samples[i].inputs.state);
      protocol::add_policy_timing(reply.answer, infer_ms.count());
      answered[i] = true;
    } catch (const std::exception&) {
      reply.error = std::current_exception();
    }
  }
  return answered;
}

model::ModelInputs Policy::prepare(const protocol::Dict& request) const {
  const RobotObservation seen = read_request(config_.robot, request, options_.limits, image_values());
  const std::vector<double> state = normalizer_.normalize_state(seen.state);
  std::vector<double> padded_state = state;
  padded_state.resize(static_cast<std::size_t>(config_.action_dim), 0.0);
  const PromptTokens prompt = tokenize(seen, config_.padded_state_in_prompt ? padded_state : state);

  model::ModelInputs inputs;
  for (const Camera& camera : seen.cameras) {
    inputs.images.push_back(image_input(camera, config_));
    inputs.image_masks.push_back(at::full({1}, has_image(camera), at::kBool));
  }
  inputs.state = at::tensor(padded_state, at::kDouble).unsqueeze(0);
  inputs.tokens = at::tensor(prompt.tokens, at::kLong).unsqueeze(0);
  inputs.token_mask = (at::arange(config_.max_token_len) < prompt.used).unsqueeze(0);
  if (std::optional<PreviousChunk> previous =
          read_previous_chunk(request, config_.robot.action_size, config_.action_horizon)) {
    inputs.continuation = continuation(*std::move(previous), inputs.state);
  }
  return inputs;
}

// The inverse of finish() for the previous chunk, whose relative actions are now relative to the new state.
model::Continuation Policy::continuation(PreviousChunk previous, const at::Tensor& state) const {
  const std::vector<double> plain_state = normalizer_.unnormalize_state(values_of<double>(state));
  const auto size = static_cast<std::size_t>(config_.robot.action_size);
  at::Tensor target = at::zeros({1, config_.action_horizon, config_.action_dim});
  for (std::int64_t step = 0; step < previous.count; ++step) {
    const auto action = std::span(previous.actions).subspan(static_cast<std::size_t>(step) * size, size);
    if (config_.robot.adapt_to_pi) aloha_action_to_pi(action);
    for (std::size_t dim = 0; dim < size; ++dim) {
      if (is_relative(dim)) action[dim] -= plain_state[dim];
    }
    std::ranges::copy(normalizer_.normalize_action(action),
                      target.mutable_data_ptr<float>() + step * config_.action_dim);
  }
  if (!target.isfinite().all().item<bool>()) {
    throw RequestError("prev_chunk: found actions that are not finite when normalised, expected the policy's own");
  }
  if (const double largest = target.abs().max().item<double>(); largest > far_from_actions) {
    options_.warn(
        "prev_chunk: found an action of " + std::to_string(largest) +
        " when normalised, expected about 1 or less; are these actions the policy's own, in the robot's units?");
  }
  const at::Tensor weights =
      model::prefix_weights(previous.schedule, previous.delay, previous.horizon, config_.action_horizon)
          .view({1, -1, 1});
  const at::Tensor held = at::arange(config_.action_horizon).view({1, -1, 1}) < (previous.freeze ? previous.delay : 0);
  return {target, previous.freeze ? at::zeros_like(weights) : weights, held};
}

bool Policy::is_relative(std::size_t dim) const {
  return dim < config_.delta_action_mask.size() && config_.delta_action_mask[dim];
}

protocol::Dict Policy::finish(const at::Tensor& chunk, const at::Tensor& state) const {
  const at::Tensor model_actions = chunk.to(at::kCPU, at::kFloat).contiguous();
  if (model_actions.sizes() != at::IntArrayRef{1, config_.action_horizon, config_.action_dim}) {
    throw std::runtime_error("the model's actions are not [1, action_horizon, action_dim]");
  }
  ActionChunk actions{config_.action_dim, normalizer_.unnormalize_actions(values_of<float>(model_actions))};
  // openpi adds the state after normalising and unnormalising it, not the state that was sent.
  const std::vector<double> plain_state = normalizer_.unnormalize_state(values_of<double>(state));
  for (std::size_t i = 0; i < actions.values.size(); ++i) {
    const std::size_t dim = i % static_cast<std::size_t>(config_.action_dim);
    if (is_relative(dim)) actions.values[i] += plain_state[dim];
    if (dim < static_cast<std::size_t>(config_.robot.action_size) && !std::isfinite(actions.values[i])) {
      throw std::runtime_error("the model's actions are not finite and are not sent");
    }
  }
  return write_answer(config_.robot, actions);
}

std::string Policy::prompt_of(const RobotObservation& seen) const {
  if (seen.prompt) return *seen.prompt;
  if (options_.default_prompt) return *options_.default_prompt;
  if (config_.default_prompt) return *config_.default_prompt;
  throw RequestError("Prompt is required: the request has no field 'prompt', and there is no default");
}

PromptTokens Policy::tokenize(const RobotObservation& seen, const std::vector<double>& state) const {
  const std::string prompt = prompt_of(seen);
  const std::int64_t places = config_.max_token_len;
  const PromptTokens tokens = config_.discrete_state_input ? tokenizer_.encode(prompt, state, places)
                              : config_.clean_prompt       ? tokenizer_.encode(prompt, places)
                                                           : tokenizer_.encode_as_sent(prompt, places);
  if (tokens.needed > tokens.used) {
    options_.warn("prompt: truncated from " + std::to_string(tokens.needed) + " to " + std::to_string(tokens.used) +
                  " tokens; the model does not see the rest");
  }
  return tokens;
}

at::Tensor Policy::noise_for(const protocol::Dict& request) {
  const std::vector<std::int64_t> shape = {config_.action_horizon, config_.action_dim};
  const protocol::Value* value = request.find(protocol::noise_key);
  if (value == nullptr) {
    return at::normal(0.0, 1.0, {1, shape[0], shape[1]}, generator_, at::kFloat);
  }
  const auto* array = std::get_if<protocol::NdArray>(value);
  if (array == nullptr || array->dtype != protocol::DType{'f', 4} || array->shape != shape) {
    throw RequestError("noise: found " + protocol::type_name(*value) + ", expected float32 array [" +
                       std::to_string(shape[0]) + ", " + std::to_string(shape[1]) + "]");
  }
  at::Tensor noise = at::empty({1, shape[0], shape[1]}, at::kFloat);
  std::memcpy(noise.mutable_data_ptr(), array->data.data(), array->data.size());
  if (!noise.isfinite().all().item<bool>()) {
    throw RequestError("noise: found values that are not finite, expected finite numbers");
  }
  return noise;
}

}  // namespace pi0::policy
