#include "tools/sweep/sweep_model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <variant>

#include "protocol/openpi_messages.h"
#include "tools/common/failure.h"
#include "tools/common/load_policy.h"
#include "tools/common/policy_parts.h"
#include "tools/common/print.h"
#include "tools/common/quant_options.h"
#include "tools/common/stop_signals.h"
#include "tools/common/stopwatch.h"

namespace pi0::tools {
namespace {

// Without a seed on the command line it is 0, so that every sweep can be repeated.
ModelOptions with_seed(ModelOptions options) {
  options.seed = options.seed.value_or(0);
  return options;
}

// Noise changed by 1/256 of bfloat16's last bit, which its activations cannot hold, or by the last bit of float32: the
// result differs by how values near the middle between two are rounded, and by nothing else that could be seen.
at::Tensor nudged(const at::Tensor& noise, model::Precision precision, std::uint64_t seed) {
  const double step = precision == model::Precision::bfloat16 ? 0x1p-16 : 0x1p-23;
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const at::Tensor signs = at::randint(0, 2, noise.sizes(), generator, noise.options()) * 2 - 1;
  return noise * (1 + signs * step);
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
      cases_.push_back({file.filename().string(), std::move(given.inputs), std::move(given.noise), {}});
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
  policy_ =
      std::make_unique<policy::Policy>(std::move(parts.config), parts.norm_stats, std::move(parts.tokenizer), nullptr,
                                       policy::PolicyOptions{.default_prompt = options_.default_prompt,
                                                             .num_steps = steps_,
                                                             .seed = seed(),
                                                             .warn = tell_,
                                                             .masked = options_.masked,
                                                             .allow_image_wrap = options_.allow_image_wrap});
  prepare(observations);
}

void SweepModel::prepare(const std::vector<Observation>& observations) {
  for (const Observation& observation : observations) {
    try {
      cases_.push_back(
          {observation.name, policy_->prepare(observation.request), policy_->noise_for(observation.request), {}});
    } catch (const std::exception& error) {
      throw std::runtime_error("observation " + observation.name + ": " + failure_text(error));
    }
  }
}

void SweepModel::load_weights() { model_ = load_model(options_, sizes_, tell_); }

void SweepModel::run_references(std::int64_t floor_repeats) {
  Stopwatch clock;
  for (std::size_t i = 0; i < cases_.size(); ++i) {
    SweepCase& one = cases_[i];
    try {
      one.reference = sample(one);
      if (!one.reference.answer.defined()) throw std::runtime_error("the unquantized model's actions are not finite");
    } catch (const Stopped&) {
      throw;
    } catch (const std::exception& error) {
      throw std::runtime_error(fmt::format("observation {} of {}: {}", i, description_, failure_text(error)));
    }
  }
  tell_(fmt::format("{} without quantization, {:.1f} s", counted(cases_.size(), "observation"), clock.lap()));
  measure_floor(floor_repeats);
}

void SweepModel::measure_floor(std::int64_t repeats) {
  if (repeats == 0) return;
  Stopwatch clock;
  ActionFloor floor;
  for (std::int64_t repeat = 0; repeat < repeats; ++repeat) {
    ActionErrors errors;
    const std::uint64_t signs = seed() + static_cast<std::uint64_t>(repeat);
    for (const SweepCase& one : cases_) {
      errors.add(one.name, one.reference, sample(one, nudged(one.noise, options_.precision, signs)));
    }
    floor.rmse = std::max(floor.rmse, errors.rmse());
    floor.rel_rmse = std::max(floor.rel_rmse, errors.rel_rmse());
  }
  floor_ = floor;
  tell_(fmt::format("rounding alone changes actions by an RMSE of up to {:.4g}: {} with other last bits, {:.1f} s",
                    floor.rmse, counted(static_cast<std::size_t>(repeats), "repeat"), clock.lap()));
}

nlohmann::ordered_json SweepModel::meta() const {
  nlohmann::ordered_json meta = report_meta(config(), chosen_device(options_.device), options_.precision, steps_);
  meta["checkpoint"] = options_.random_weights ? "random weights" : options_.checkpoint_dir.string();
  meta["kernels"] = name_of(options_.kernels);
  meta["masked"] = options_.masked == model::MaskedInputs::skip ? "skip" : "keep";
  meta["observations"] = description_;
  meta["seed"] = seed();
  return meta;
}

ActionNames SweepModel::action_names() const {
  if (!has_robot()) return {};
  const policy::RobotConfig& robot = policy_->config().robot;
  return {robot.action_names, robot.gripper_actions};
}

ActionSample SweepModel::sample(const SweepCase& one, const at::Tensor& noise) const {
  before_call_();
  ActionSample sample;
  const model::SampleOptions options{.masked = options_.masked, .velocity = &sample.velocity};
  sample.raw = model_->sample_actions(one.inputs, noise, steps_, options).cpu();
  if (sample.raw.isfinite().all().item<bool>()) sample.answer = answer(one, sample.raw);
  return sample;
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
