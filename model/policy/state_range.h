// Counts state values that are far outside what a policy was trained on, and names each such dimension once in a
// warning: most often the statistics belong to another robot. The states are served all the same.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "model/policy/normalizer.h"
#include "model/policy/robot_config.h"

namespace pi0::policy {

// The largest normalised magnitude that is no reason for a warning. Quantile: 1.5, a quarter of the range from the 1st
// to the 99th percentile beyond either of them. Z-score: 5 standard deviations.
double state_limit(Normalization form);

class StateRange {
 public:
  StateRange(const RobotConfig& robot, Normalization form, std::function<void(const std::string&)> warn);

  // A normalised state; what is behind the robot's values is ignored. Calls must not overlap.
  void check(std::span<const double> state);

  struct Count {
    std::string dimension;  // "observation/joint_position[3]", or the field alone where it is one number
    std::uint64_t outside;  // values so far
  };
  std::vector<Count> counts() const;  // of every dimension; any thread may call

 private:
  const double limit_;
  const std::vector<std::string> dimensions_;
  std::vector<std::atomic<std::uint64_t>> outside_;  // of each dimension
  const std::function<void(const std::string&)> warn_;
};

}  // namespace pi0::policy
