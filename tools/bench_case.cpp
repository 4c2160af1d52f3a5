#include "tools/bench_case.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>

#include "protocol/msgpack_numpy.h"
#include "protocol/openpi_messages.h"
#include "tools/bench_clock.h"

namespace pi0::tools {
namespace {

protocol::NdArray random_picture(policy::ImageLayout layout, std::mt19937_64& generator) {
  constexpr std::int64_t size = 224;
  const bool channels_first = layout == policy::ImageLayout::channels_first;
  protocol::NdArray picture{{'u', 1}, {size, size, 3}, {}};
  if (channels_first) picture.shape = {3, size, size};
  picture.data.resize(static_cast<std::size_t>(size * size * 3));
  std::ranges::generate(picture.data, [&] { return static_cast<std::uint8_t>(generator()); });
  return picture;
}

protocol::NdArray random_state(std::int64_t size, std::mt19937_64& generator) {
  std::vector<double> values(static_cast<std::size_t>(size));
  std::uniform_real_distribution<double> distribution(0.0, 1.0);
  std::ranges::generate(values, [&] { return distribution(generator); });
  protocol::NdArray state{{'f', 8}, {size}, {}};
  state.data.resize(values.size() * sizeof(double));
  std::memcpy(state.data.data(), values.data(), state.data.size());
  return state;
}

// Every field that the robot's client sends.
protocol::Dict random_request(const policy::RobotConfig& robot, std::mt19937_64& generator) {
  protocol::Dict request, cameras;
  for (const policy::RobotConfig::Camera& camera : robot.cameras) {
    if (camera.field.empty()) continue;
    (robot.camera_map.empty() ? request : cameras)
        .set(camera.field, random_picture(robot.image_layout, generator));
  }
  if (!robot.camera_map.empty()) request.set(robot.camera_map, std::move(cameras));
  for (const policy::RobotConfig::StateField& field : robot.state) {
    request.set(field.field, random_state(field.size, generator));
  }
  request.set(std::string(protocol::prompt_key), "put the banana in the green bin");
  return request;
}

}  // namespace

BenchCase::BenchCase(PolicyParts parts, const model::Pi0& model, const CaseSize& size,
                     const ModelOptions& options)
    : model_(model),
      size_(size),
      masked_(options.masked),
      num_steps_(step_count(options, parts.sizes)),
      policy_(std::move(parts.config), std::move(parts.norm_stats), std::move(parts.tokenizer), {},
              {}) {
  const policy::PolicyConfig& policy = policy_.config();
  const std::uint64_t seed = options.seed.value_or(0);
  std::mt19937_64 generator(seed);
  request_ = protocol::encode(random_request(policy.robot, generator));
  at::Generator draws = at::detail::createCPUGenerator(seed);
  tokens_ = at::zeros({1, policy.max_token_len}, at::kLong);
  tokens_.narrow(1, 0, size.prompt_tokens).random_(0, model.config().vocab_size, draws);
  token_mask_ = (at::arange(policy.max_token_len) < size.prompt_tokens).unsqueeze(0);
  noise_ = at::normal(0.0, 1.0, {size.batch, policy.action_horizon, policy.action_dim}, draws,
                      at::kFloat);
}

model::ModelInputs BenchCase::inputs_of(const protocol::Dict& request) const {
  model::ModelInputs inputs = policy_.prepare(request);
  for (std::size_t i = 0; i < inputs.images.size(); ++i) {
    const bool seen = static_cast<std::int64_t>(i) < size_.cameras;
    const bool sent = inputs.image_masks[i].item<bool>();
    if (seen && !sent) inputs.images[i] = inputs.images[0];
    inputs.image_masks[i] = at::full({1}, seen, at::kBool);
  }
  inputs.tokens = tokens_;
  inputs.token_mask = token_mask_;
  return inputs;
}

CaseSeconds BenchCase::run() const {
  CaseSeconds seconds;
  BenchClock clock;
  std::vector<protocol::Dict> messages;  // requests, then answers
  for (std::int64_t i = 0; i < size_.batch; ++i) messages.push_back(protocol::decode(request_));
  seconds.wire = clock.lap();

  std::vector<model::ModelInputs> samples;
  for (const protocol::Dict& request : messages) samples.push_back(inputs_of(request));
  const model::ModelInputs inputs = model::joined(samples);
  seconds.transforms = clock.lap();

  const at::Tensor chunks =
      model_.sample_actions(inputs, noise_, num_steps_,
                            {.masked = masked_, .seconds = &seconds.stages})
          .cpu();
  seconds.model = clock.lap();

  for (std::int64_t i = 0; i < size_.batch; ++i) {
    messages[static_cast<std::size_t>(i)] =
        policy_.finish(chunks.narrow(0, i, 1), inputs.state.narrow(0, i, 1));
  }
  seconds.transforms += clock.lap();
  for (const protocol::Dict& answer : messages) protocol::encode(answer);
  seconds.wire += clock.lap();
  return seconds;
}

}  // namespace pi0::tools
