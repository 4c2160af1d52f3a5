#include "tools/sweep/action_errors.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace pi0::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

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

double cosine_of(const at::Tensor& a, const at::Tensor& b) {
  return at::sum(a * b).item<double>() / std::sqrt(at::sum(a * a).item<double>() * at::sum(b * b).item<double>());
}

// Adds to a sum that has no shape yet.
void add_to(at::Tensor& sum, const at::Tensor& values) { sum = sum.defined() ? sum + values : values; }

}  // namespace

void ActionErrors::add_raw(const std::string& name, const at::Tensor& reference, const at::Tensor& found) {
  // As in pi0-quant: summed in float32 within an observation, in double over observations.
  const at::Tensor squares = (reference - found).pow(2);
  raw_ += squares.sum().item<float>();
  raw_count_ += squares.numel();
  for (std::int64_t i = 0; i < reference.size(0); ++i) {
    const at::Tensor exact = reference[i].to(at::kDouble), other = found[i].to(at::kDouble);
    samples_.push_back({reference.size(0) == 1 ? name : name + ", sample " + std::to_string(i),
                        (exact - other).pow(2).mean().item<double>(), exact.pow(2).mean().item<double>(),
                        cosine_of(exact, other)});
  }
}

void ActionErrors::add(const std::string& name, const ActionSample& reference, const ActionSample& found) {
  add_raw(name, reference.raw, found.raw);
  if (!found.answer.defined()) {
    ++nonfinite_;
    return;
  }
  ++finite_;
  add_to(answers_, (reference.answer - found.answer).pow(2).mean(0));
  add_to(velocity_, (reference.velocity - found.velocity).to(at::kDouble).pow(2).mean({1, 2, 3}));
}

double ActionErrors::rmse() const { return std::sqrt(raw_ / static_cast<double>(raw_count_)); }

void ActionErrors::write(Json& entry, bool in_robot_units, const ActionNames& names, const Json& floor) const {
  double reference = 0, cosines = 0, squares = 0;
  for (const Sample& sample : samples_) {
    reference += sample.reference;
    cosines += sample.cosine;
    squares += sample.square;
  }
  const auto n = static_cast<double>(samples_.size());
  double spread = 0;
  for (const Sample& sample : samples_) spread += std::pow(sample.square - squares / n, 2);
  const auto worst = std::ranges::max_element(samples_, {}, [](const Sample& sample) {
    return std::isfinite(sample.square) ? sample.square : std::numeric_limits<double>::infinity();
  });
  const auto least_alike = std::ranges::min_element(
      samples_, {}, [](const Sample& sample) { return std::isfinite(sample.cosine) ? sample.cosine : -2; });
  entry["action_rmse"] = number(rmse());
  entry["action_rmse_floor"] = floor;
  entry["below_floor"] = floor.is_null() ? Json() : Json(rmse() <= floor.get<double>());
  entry["action_rel_rmse"] = number(std::sqrt(squares / reference));
  entry["action_rel_rmse_floor"] = floor.is_null() ? Json() : number(floor.get<double>() / std::sqrt(reference / n));
  // The standard error of the mean square, carried over to its root; one observation has no spread.
  entry["action_rmse_se"] = number(n < 2         ? not_a_number
                                   : rmse() == 0 ? 0
                                                 : std::sqrt(spread / (n - 1) / n) / (2 * std::sqrt(squares / n)));
  entry["action_cosine"] = number(cosines / n);
  entry["action_cosine_worst"] = number(least_alike->cosine);
  entry["worst_observation"] = worst->name;
  entry["worst_observation_rmse"] = number(std::sqrt(worst->square));

  const at::Tensor mean = answers_.defined() ? answers_ / finite_ : at::full({1, 1}, not_a_number, at::kDouble);
  const at::Tensor by_dimension = mean.mean(0);
  entry["action_rmse_robot"] = in_robot_units ? number(mean.mean().sqrt().item<double>()) : Json();
  double arm = 0, gripper = 0;
  Json by_joint = Json::object();
  for (std::size_t i = 0; i < names.all.size() && answers_.defined(); ++i) {
    const auto square = by_dimension[static_cast<std::int64_t>(i)].item<double>();
    by_joint[names.all[i]] = number(std::sqrt(square));
    const bool is_gripper = std::ranges::find(names.grippers, names.all[i]) != names.grippers.end();
    (is_gripper ? gripper : arm) += square;
  }
  const bool are_apart = !by_joint.empty() && !names.grippers.empty();
  const auto grippers = static_cast<double>(names.grippers.size()), all = static_cast<double>(names.all.size());
  entry["action_rmse_arm"] = are_apart ? number(std::sqrt(arm / (all - grippers))) : Json();
  entry["action_rmse_gripper"] = are_apart ? number(std::sqrt(gripper / grippers)) : Json();
  entry["action_rmse_by_joint"] = by_joint;
  entry["action_rmse_by_dimension"] = numbers(by_dimension.sqrt());
  entry["action_rmse_by_step"] = numbers(mean.mean(1).sqrt());
  entry["action_rmse_by_step_and_dimension"] = rows(mean.sqrt());
  entry["velocity_rmse_by_denoise_step"] = velocity_.defined() ? numbers((velocity_ / finite_).sqrt()) : Json::array();
  entry["nonfinite_observations"] = nonfinite_;
}

}  // namespace pi0::tools
