// The model of a sweep, its observations, and its actions without quantization.
//
// Shape letters: B batch, A action horizon, N action size of the model, D of the robot.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/pi0.h"
#include "model/policy/policy.h"
#include "tools/common/model_options.h"
#include "tools/common/observations.h"
#include "tools/common/tensor_inputs.h"

namespace pi0::tools {

// One of the three is given.
struct ObservationSource {
  std::filesystem::path recorded;              // folder of recordings
  std::int64_t synthetic = 0;                  // number of synthetic ones
  std::vector<std::filesystem::path> tensors;  // files of tensors, for the bare model
};

struct SweepCase {
  model::ModelInputs inputs;
  at::Tensor noise;   // [B, A, N] float32
  at::Tensor raw;     // [B, A, N] float32, of the model without quantization
  at::Tensor answer;  // [B, A, D] float64, the same as a client gets it
};

class SweepModel {
 public:
  // Reads all but the weights. Throws what is wrong with the checkpoint, the policy or an observation,
  // by name. `before_call` runs before every call of the model and may throw to stop the work.
  SweepModel(ModelOptions options, const ObservationSource& source, std::function<void(const std::string&)> tell,
             std::function<void()> before_call);

  // Loads the weights and runs every observation.
  void load();
  bool is_loaded() const { return model_ != nullptr; }

  model::Pi0& model() const { return *model_; }
  const std::vector<SweepCase>& cases() const { return cases_; }
  bool has_robot() const { return policy_ != nullptr; }
  std::string config() const { return has_robot() ? policy_->config().name : ""; }
  std::string observations() const { return description_; }  // where they come from
  std::int64_t steps() const { return steps_; }
  std::uint64_t seed() const { return *options_.seed; }  // 0 if the options have none

  at::Tensor sample(const SweepCase& one) const;                         // as SweepCase::raw
  at::Tensor answer(const SweepCase& one, const at::Tensor& raw) const;  // as SweepCase::answer

 private:
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
};

}  // namespace pi0::tools
