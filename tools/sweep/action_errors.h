// The error of a quantized model's actions against those of the unquantized model, over several observations.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <nlohmann/json.hpp>

namespace pi0::tools {

class ActionErrors {
 public:
  // Both [B, A, N] float32, as the model gives them.
  void add_raw(const at::Tensor& reference, const at::Tensor& found);

  // Both [B, A, D] float64, as a client gets them.
  void add_answer(const at::Tensor& reference, const at::Tensor& found);

  // An observation whose actions are not finite: it counts in the raw error only.
  void add_nonfinite() { ++nonfinite_; }

  // Fields action_rmse (raw; pi0-quant's formula), action_rmse_robot, and of the answers action_rmse_by_dimension [D],
  // action_rmse_by_step [A], action_rmse_by_step_and_dimension [A][D], nonfinite_observations. Numbers that are not
  // finite are null; action_rmse_robot is also null without a robot.
  void write(nlohmann::ordered_json& entry, bool in_robot_units) const;

 private:
  double raw_ = 0;
  std::int64_t raw_count_ = 0;
  at::Tensor answers_;  // [A, D], squares summed over observations
  std::int64_t answer_count_ = 0;
  std::int64_t nonfinite_ = 0;
};

}  // namespace pi0::tools
