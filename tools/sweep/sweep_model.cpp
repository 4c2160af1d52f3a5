#include "tools/sweep/sweep_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>
#include <stdexcept>
#include <utility>
#include <variant>

#include "protocol/openpi_messages.h"
#include "tools/common/failure.h"
#include "tools/common/load_policy.h"
#include "tools/common/policy_parts.h"
#include "tools/common/print.h"
#include "tools/common/stop_signals.h"
#include "tools/common/stopwatch.h"

namespace pi0::tools {

namespace {

// Without a seed on the command line it is 0, so that every sweep can be repeated.
ModelOptions with_seed(ModelOptions options) {
  options.seed = options.seed.value_or(0);
  return options;
}

}  // namespace

SweepModel::SweepModel(ModelOptions options, const ObservationSource& source,
                       std::function<void(const std::string&)> tell, std::function<void()> before_call)
    : options_(with_seed(std::move(options))), tell_(std::move(tell)), before_call_(std::move(before_call)) {
  if (!source.tensors.empty()) {
    sizes_ = chosen_sizes(options_);
    steps_ = step_count(options_, sizes_);
    std::vector<std::string> names;
    for (const std::filesystem::path& file : source.tensors) {
      TensorInputs given = read_tensor_inputs(file);
      cases_.push_back({std::move(given.inputs), std::move(given.noise), {}, {}});
      names.push_back(file.string());
    }
    description_ = fmt::format("{}", fmt::join(names, ", "));
    return;
  }
  PolicyParts parts = load_parts(options_);
  for (const std::string& line : parts.warnings) tell_(line);
  sizes_ = parts.sizes;
  steps_ = step_count(options_, sizes_);
  const bool is_recorded = source.synthetic == 0;
  description_ = is_recorded ? source.recorded.string() : fmt::format("{} synthetic", source.synthetic);
  const std::vector<Observation> observations =
      is_recorded ? read_observations(source.recorded)
                  : synthetic_observations(parts.config.robot, source.synthetic, seed());
  // Only for its transforms of requests and action chunks; sample() calls the model.
  policy_ = std::make_unique<policy::Policy>(
      std::move(parts.config), parts.norm_stats, std::move(parts.tokenizer), nullptr,
      policy::PolicyOptions{options_.default_prompt, steps_, seed(), tell_, options_.masked});
  prepare(observations);
}

void SweepModel::prepare(const std::vector<Observation>& observations) {
  for (const Observation& observation : observations) {
    try {
      cases_.push_back({policy_->prepare(observation.request), policy_->noise_for(observation.request), {}, {}});
    } catch (const std::exception& error) {
      throw std::runtime_error("observation " + observation.name + ": " + failure_text(error));
    }
  }
}

void SweepModel::load() {
  model_ = load_model(options_, sizes_);
  Stopwatch clock;
  for (std::size_t i = 0; i < cases_.size(); ++i) {
    SweepCase& one = cases_[i];
    try {
      one.raw = sample(one);
      one.answer = answer(one, one.raw);
    } catch (const Stopped&) {
      throw;
    } catch (const std::exception& error) {
      throw std::runtime_error(fmt::format("observation {} of {}: {}", i, description_, failure_text(error)));
    }
  }
  tell_(fmt::format("{} without quantization, {:.1f} s", counted(cases_.size(), "observation"), clock.lap()));
}

at::Tensor SweepModel::sample(const SweepCase& one) const {
  before_call_();
  return model_->sample_actions(one.inputs, one.noise, steps_, {.masked = options_.masked}).cpu();
}

at::Tensor SweepModel::answer(const SweepCase& one, const at::Tensor& raw) const {
  if (!has_robot()) return raw.to(at::kDouble);
  const protocol::Dict answer = policy_->finish(raw, one.inputs.state);
  const auto& array = std::get<protocol::NdArray>(*answer.find(protocol::actions_key));
  at::Tensor actions = at::empty(array.shape, at::kDouble);
  std::memcpy(actions.mutable_data_ptr(), array.data.data(), array.data.size());
  return actions.unsqueeze(0);
}

}  // namespace pi0::tools
