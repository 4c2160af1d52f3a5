// The error of a quantized model's actions against those of the unquantized model, over several observations.
//
// Shape letters: B batch, A action horizon, N action size of the model, D of the robot.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/sweep/action_sample.h"

namespace pi0::tools {

// What the robot calls its actions; empty where it has no names.
struct ActionNames {
  std::vector<std::string> all;       // D
  std::vector<std::string> grippers;  // of them
};

class ActionErrors {
 public:
  // Of the observation called `name`. One whose actions are not finite counts in action_rmse, which becomes null, and
  // in nonfinite_observations only.
  void add(const std::string& name, const ActionSample& reference, const ActionSample& found);

  // The fields that docs/results.md explains, from action_rmse to nonfinite_observations. Numbers that are not finite
  // are null; so are those in robot units without a robot. `floor` is the action RMSE that rounding alone causes, null
  // where it was not measured.
  void write(nlohmann::ordered_json& entry, bool in_robot_units, const ActionNames& names,
             const nlohmann::ordered_json& floor) const;

  double rmse() const;  // the field action_rmse; not a number without observations

 private:
  struct Sample {
    std::string name;
    double square = 0;     // mean over A and N
    double reference = 0;  // the reference's mean square
    double cosine = 0;     // between all A x N values
  };
  void add_raw(const std::string& name, const at::Tensor& reference, const at::Tensor& found);

  double raw_ = 0;
  std::int64_t raw_count_ = 0;
  std::vector<Sample> samples_;
  at::Tensor answers_;   // [A, D], mean squares summed over observations
  at::Tensor velocity_;  // [steps], the same
  std::int64_t finite_ = 0;
  std::int64_t nonfinite_ = 0;
};

}  // namespace pi0::tools
