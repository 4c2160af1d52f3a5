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

void ActionErrors::add_raw(const std::string& name, const ActionSample& reference, const at::Tensor& found) {
  // As in pi0-quant: over all dimensions, summed in float32 within an observation, in double over observations.
  const at::Tensor squares = (reference.raw - found).pow(2);
  raw_ += squares.sum().item<float>();
  raw_count_ += squares.numel();
  const std::int64_t batch = reference.raw.size(0), used = std::min(reference.answer.size(-1), reference.raw.size(-1));
  for (std::int64_t i = 0; i < batch; ++i) {
    const auto used_of = [&](const at::Tensor& raw) { return raw[i].narrow(-1, 0, used).to(at::kDouble); };
    const at::Tensor exact = used_of(reference.raw), other = used_of(found);
    samples_.push_back({batch == 1 ? name : name + ", sample " + std::to_string(i),
                        squares[i].to(at::kDouble).mean().item<double>(), (exact - other).pow(2).mean().item<double>(),
                        exact.pow(2).mean().item<double>(), cosine_of(exact, other)});
  }
}

void ActionErrors::add(const std::string& name, const ActionSample& reference, const ActionSample& found) {
  add_raw(name, reference, found.raw);
  if (!found.answer.defined()) {
    ++nonfinite_;
    return;
  }
  ++finite_;
  add_to(answers_, (reference.answer - found.answer).pow(2).mean(0));
  add_to(velocity_, (reference.velocity - found.velocity).to(at::kDouble).pow(2).mean({1, 2, 3}));
}

double ActionErrors::rmse() const { return std::sqrt(raw_ / static_cast<double>(raw_count_)); }

double ActionErrors::rel_rmse() const {
  double used = 0, reference = 0;
  for (const Sample& sample : samples_) {
    used += sample.used;
    reference += sample.reference;
  }
  return std::sqrt(used / reference);
}

void ActionErrors::write(Json& entry, bool in_robot_units, const ActionNames& names,
                         const std::optional<ActionFloor>& floor) const {
  double cosines = 0, squares = 0;
  for (const Sample& sample : samples_) {
    cosines += sample.cosine;
    squares += sample.square;
  }
  const auto n = static_cast<double>(samples_.size());
  double spread = 0;
  for (const Sample& sample : samples_) spread += std::pow(sample.square - squares / n, 2);
  const auto worst = std::ranges::max_element(samples_, {}, [](const Sample& sample) {
    return std::isfinite(sample.used) ? sample.used : std::numeric_limits<double>::infinity();
  });
  const auto least_alike = std::ranges::min_element(
      samples_, {}, [](const Sample& sample) { return std::isfinite(sample.cosine) ? sample.cosine : -2; });
  entry["action_rmse"] = number(rmse());
  entry["action_rmse_floor"] = floor ? number(floor->rmse) : Json();
  entry["below_floor"] = floor ? Json(rmse() <= floor->rmse) : Json();
  entry["action_rel_rmse"] = number(rel_rmse());
  entry["action_rel_rmse_floor"] = floor ? number(floor->rel_rmse) : Json();
  // The standard error of the mean square, carried over to its root; one observation has no spread.
  entry["action_rmse_se"] = number(n < 2         ? not_a_number
                                   : rmse() == 0 ? 0
                                                 : std::sqrt(spread / (n - 1) / n) / (2 * std::sqrt(squares / n)));
  entry["action_cosine"] = number(cosines / n);
  entry["action_cosine_worst"] = number(least_alike->cosine);
  entry["worst_observation"] = worst->name;
  entry["worst_observation_rmse"] = number(std::sqrt(worst->used));

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
