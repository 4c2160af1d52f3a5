#include "model/policy/state_range.h"

#include <cmath>
#include <utility>

namespace pi0::policy {
namespace {

std::vector<std::string> dimensions_of(const RobotConfig& robot) {
  std::vector<std::string> names;
  for (const RobotConfig::StateField& field : robot.state) {
    for (std::int64_t i = 0; i < field.size; ++i) {
      names.push_back(field.size == 1 ? field.field : field.field + "[" + std::to_string(i) + "]");
    }
  }
  return names;
}

}  // namespace

double state_limit(Normalization form) {
  return form == Normalization::quantile || form == Normalization::lerobot_quantile ? 1.5 : 5.0;
}

StateRange::StateRange(const RobotConfig& robot, Normalization form, std::function<void(const std::string&)> warn)
    : limit_(state_limit(form)),
      dimensions_(dimensions_of(robot)),
      outside_(dimensions_.size()),
      warn_(std::move(warn)) {}

void StateRange::check(std::span<const double> state) {
  std::string first_ones;
  for (std::size_t dim = 0; dim < dimensions_.size(); ++dim) {
    if (std::fabs(state[dim]) <= limit_) continue;
    if (outside_[dim]++ > 0) continue;
    first_ones += (first_ones.empty() ? "" : ", ") + dimensions_[dim] + " is " + std::to_string(state[dim]);
  }
  if (first_ones.empty()) return;
  warn_("state far out of range: after normalization " + first_ones + ", expected at most " + std::to_string(limit_) +
        " in magnitude; do the checkpoint's statistics belong to this robot? /metrics counts more of these");
}

std::vector<StateRange::Count> StateRange::counts() const {
  std::vector<Count> counts;
  for (std::size_t dim = 0; dim < dimensions_.size(); ++dim) counts.push_back({dimensions_[dim], outside_[dim]});
  return counts;
}

}  // namespace pi0::policy
