#include "tools/bench/bench_case.h"

#include <ATen/CPUGeneratorImpl.h>

#include "protocol/msgpack_numpy.h"
#include "tools/common/observations.h"
#include "tools/common/policy_parts.h"
#include "tools/common/stopwatch.h"

namespace pi0::tools {
BenchCase::BenchCase(PolicyParts parts, const model::Pi0& model, const CaseSize& size, const ModelOptions& options)
    : model_(model),
      size_(size),
      masked_(options.masked),
      num_steps_(step_count(options, parts.sizes)),
      policy_(std::move(parts.config), parts.norm_stats, std::move(parts.tokenizer), {}, {}) {
  const policy::PolicyConfig& policy = policy_.config();
  const std::uint64_t seed = options.seed.value_or(0);
  request_ = protocol::encode(synthetic_observations(policy.robot, 1, seed).front().request);
  at::Generator draws = at::detail::createCPUGenerator(seed);
  tokens_ = at::zeros({1, policy.max_token_len}, at::kLong);
  tokens_.narrow(1, 0, size.prompt_tokens).random_(0, model.config().vocab_size, draws);
  token_mask_ = (at::arange(policy.max_token_len) < size.prompt_tokens).unsqueeze(0);
  noise_ = at::normal(0.0, 1.0, {size.batch, policy.action_horizon, policy.action_dim}, draws, at::kFloat);
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
  Stopwatch clock;
  std::vector<protocol::Dict> messages;  // requests, then answers
  for (std::int64_t i = 0; i < size_.batch; ++i) messages.push_back(protocol::decode(request_));
  seconds.wire = clock.lap();

  std::vector<model::ModelInputs> samples;
  for (const protocol::Dict& request : messages) samples.push_back(inputs_of(request));
  const model::ModelInputs inputs = model::joined(samples);
  seconds.transforms = clock.lap();

  const at::Tensor chunks =
      model_.sample_actions(inputs, noise_, num_steps_, {.masked = masked_, .seconds = &seconds.stages}).cpu();
  seconds.model = clock.lap();

  for (std::int64_t i = 0; i < size_.batch; ++i) {
    messages[static_cast<std::size_t>(i)] = policy_.finish(chunks.narrow(0, i, 1), inputs.state.narrow(0, i, 1));
  }
  seconds.transforms += clock.lap();
  for (const protocol::Dict& answer : messages) protocol::encode(answer);
  seconds.wire += clock.lap();
  return seconds;
}

}  // namespace pi0::tools
