// The model of a sweep, its observations, and its actions without quantization.
//
// Shape letters: B batch, A action horizon, N action size of the model, D of the robot.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "model/pi0.h"
#include "model/policy/policy.h"
#include "tools/common/model_options.h"
#include "tools/common/observations.h"
#include "tools/common/tensor_inputs.h"
#include "tools/sweep/action_errors.h"
#include "tools/sweep/action_sample.h"

namespace pi0::tools {

// One of the three is given.
struct ObservationSource {
  std::filesystem::path recorded;              // folder of recordings
  std::int64_t synthetic = 0;                  // number of synthetic ones
  std::vector<std::filesystem::path> tensors;  // files of tensors, for the bare model
};

struct SweepCase {
  std::string name;  // of the observation
  model::ModelInputs inputs;
  at::Tensor noise;        // [B, A, N] float32
  ActionSample reference;  // of the model without quantization
};

class SweepModel {
 public:
  // Reads all but the weights. Throws what is wrong with the checkpoint, the policy or an observation,
  // by name. `before_call` runs before every call of the model and may throw to stop the work.
  SweepModel(ModelOptions options, const ObservationSource& source, std::function<void(const std::string&)> tell,
             std::function<void()> before_call);

  void load_weights();

  // Runs every observation without quantization, and `floor_repeats` more times for the floor.
  void run_references(std::int64_t floor_repeats);
  bool is_loaded() const { return model_ != nullptr; }

  model::Pi0& model() const { return *model_; }
  const std::vector<SweepCase>& cases() const { return cases_; }
  bool has_robot() const { return policy_ != nullptr; }
  ActionNames action_names() const;

  // What rounding alone causes: the largest action RMSE of the repeats, in which the unquantized model's noise differs
  // by less than its activations hold. None without repeats.
  std::optional<ActionFloor> floor() const { return floor_; }
  std::string config() const { return has_robot() ? policy_->config().name : ""; }
  std::string observations() const { return description_; }  // where they come from
  std::int64_t steps() const { return steps_; }
  std::uint64_t seed() const { return *options_.seed; }  // 0 if the options have none
  nlohmann::ordered_json meta() const;                   // what results must share to be compared

  ActionSample sample(const SweepCase& one) const { return sample(one, one.noise); }  // of the model as it is now

 private:
  ActionSample sample(const SweepCase& one, const at::Tensor& noise) const;
  at::Tensor answer(const SweepCase& one, const at::Tensor& raw) const;
  void measure_floor(std::int64_t repeats);
  void prepare(const std::vector<Observation>& observations);

  const ModelOptions options_;
  std::function<void(const std::string&)> tell_;
  std::function<void()> before_call_;
  std::unique_ptr<policy::Policy> policy_;  // null: the bare model on tensors
  model::ModelConfig sizes_;
  std::int64_t steps_ = 0;
  std::string description_;
  std::vector<SweepCase> cases_;
  std::shared_ptr<model::Pi0> model_;
  std::optional<ActionFloor> floor_;
};

}  // namespace pi0::tools
