#include "tools/sweep/action_errors.h"

#include <cmath>
#include <limits>

namespace pi0::tools {
namespace {

using Json = nlohmann::ordered_json;

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json numbers(const at::Tensor& values) {
  Json list = Json::array();
  for (std::int64_t i = 0; i < values.numel(); ++i) list.push_back(number(values[i].item<double>()));
  return list;
}

Json rows(const at::Tensor& values) {
  Json list = Json::array();
  for (std::int64_t i = 0; i < values.size(0); ++i) list.push_back(numbers(values[i]));
  return list;
}

}  // namespace

void ActionErrors::add_raw(const at::Tensor& reference, const at::Tensor& found) {
  // As in pi0-quant: summed in float32 within an observation, in double over observations.
  const at::Tensor squares = (reference - found).pow(2);
  raw_ += squares.sum().item<float>();
  raw_count_ += squares.numel();
}

void ActionErrors::add_answer(const at::Tensor& reference, const at::Tensor& found) {
  const at::Tensor squares = (reference - found).pow(2).mean(0);
  answers_ = answers_.defined() ? answers_ + squares : squares;
  ++answer_count_;
}

void ActionErrors::write(Json& entry, bool in_robot_units) const {
  entry["action_rmse"] = number(std::sqrt(raw_ / static_cast<double>(raw_count_)));
  const at::Tensor mean = answers_.defined() ? answers_ / answer_count_
                                             : at::full({1, 1}, std::numeric_limits<double>::quiet_NaN(), at::kDouble);
  entry["action_rmse_robot"] = in_robot_units ? number(mean.mean().sqrt().item<double>()) : Json();
  entry["action_rmse_by_dimension"] = numbers(mean.mean(0).sqrt());
  entry["action_rmse_by_step"] = numbers(mean.mean(1).sqrt());
  entry["action_rmse_by_step_and_dimension"] = rows(mean.sqrt());
  entry["nonfinite_observations"] = nonfinite_;
}

}  // namespace pi0::tools
