// The error of a quantized model's actions against those of the unquantized model, over several observations.
//
// Shape letters: B batch, A action horizon, N action size of the model, D of the robot.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tools/sweep/action_sample.h"

namespace pi0::tools {

// What the robot calls its actions; empty where it has no names.
struct ActionNames {
  std::vector<std::string> all;       // D
  std::vector<std::string> grippers;  // of them
};

// What rounding alone causes.
struct ActionFloor {
  double rmse = 0, rel_rmse = 0;
};

class ActionErrors {
 public:
  // Adds the observation called `name`. If its actions are not finite, it counts in action_rmse only, which becomes
  // null, and in nonfinite_observations.
  void add(const std::string& name, const ActionSample& reference, const ActionSample& found);

  // The fields that docs/results.md explains, from action_rmse to nonfinite_observations. Numbers that are not finite
  // are null; so are those in robot units without a robot. `floor` is what rounding alone causes; none: not measured.
  void write(nlohmann::ordered_json& entry, bool in_robot_units, const ActionNames& names,
             const std::optional<ActionFloor>& floor) const;

  double rmse() const;      // the field action_rmse; not a number without observations
  double rel_rmse() const;  // action_rel_rmse, likewise

 private:
  struct Sample {
    std::string name;
    double square = 0;     // mean over A and N
    double used = 0;       // mean over A and the D dimensions that the robot gets; the others are padding
    double reference = 0;  // the reference's mean square, over the same
    double cosine = 0;     // between these A x D values
  };
  void add_raw(const std::string& name, const ActionSample& reference, const at::Tensor& found);

  double raw_ = 0;
  std::int64_t raw_count_ = 0;
  std::vector<Sample> samples_;
  at::Tensor answers_;   // [A, D], mean squares summed over observations
  at::Tensor velocity_;  // [steps], the same
  std::int64_t finite_ = 0;
  std::int64_t nonfinite_ = 0;
};

}  // namespace pi0::tools
