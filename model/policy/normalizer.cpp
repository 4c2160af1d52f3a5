#include "model/policy/normalizer.h"

#include <cmath>

namespace pi0::policy {
namespace {

// Guards against dividing by zero where a dimension is constant.
constexpr double openpi_epsilon = 1e-6;
constexpr float lerobot_epsilon = 1e-8F;

float to_float(double value) { return static_cast<float>(value); }

bool is_quantile(Normalization form) {
  return form == Normalization::quantile || form == Normalization::lerobot_quantile;
}

bool is_lerobot(Normalization form) {
  return form == Normalization::lerobot_quantile || form == Normalization::lerobot_z_score;
}

}  // namespace

Normalizer::Normalizer(Normalization form, const NormStats& stats, std::int64_t state_size, std::int64_t action_size,
                       std::int64_t action_dim)
    : form_(form),
      state_(affine(stats.state, stats.source + ": norm_stats.state", static_cast<std::size_t>(state_size),
                    static_cast<std::size_t>(state_size), static_cast<std::size_t>(action_dim))),
      actions_(affine(stats.actions, stats.source + ": norm_stats.actions", 1, static_cast<std::size_t>(action_size),
                      static_cast<std::size_t>(action_dim))) {}

Normalizer::Affine Normalizer::affine(const FieldStats& stats, const std::string& where, std::size_t at_least,
                                      std::size_t used, std::size_t at_most) const {
  const bool quantile = is_quantile(form_);
  if (quantile && stats.q01.empty()) {
    throw NormStatsError(where + ": 'q01' and 'q99' are missing; this policy normalises by quantiles");
  }
  Affine affine;
  affine.offset = quantile ? stats.q01 : stats.mean;
  affine.known = affine.offset.size();
  if (affine.known < at_least || affine.known > at_most) {
    throw NormStatsError(where + "." + (quantile ? "q01" : "mean") + ": has " + std::to_string(affine.known) +
                         " values, expected " + std::to_string(at_least) + " to " + std::to_string(at_most));
  }
  affine.offset.resize(at_most, 0.0);
  affine.scale.assign(at_most, is_lerobot(form_) ? 1.0 : 1.0 + openpi_epsilon);
  affine.scale_back = affine.scale;
  for (std::size_t dim = 0; dim < affine.known; ++dim) {
    const auto check = [&](const char* key, double value) {
      if (dim >= used || std::isfinite(value)) return;
      throw NormStatsError(where + "." + key + "[" + std::to_string(dim) + "]: is not finite, expected a number");
    };
    check(quantile ? "q01" : "mean", affine.offset[dim]);
    check(quantile ? "q99" : "std", quantile ? stats.q99[dim] : stats.std[dim]);
    const double low = quantile ? stats.q01[dim] : 0.0, high = quantile ? stats.q99[dim] : stats.std[dim];
    if (!is_lerobot(form_)) {
      affine.scale[dim] = affine.scale_back[dim] = high - low + openpi_epsilon;
      continue;
    }
    const float range = to_float(high) - to_float(low);
    const float guarded = quantile && range == 0.0F ? lerobot_epsilon : range;
    affine.scale[dim] = quantile ? guarded : range + lerobot_epsilon;
    affine.scale_back[dim] = guarded;
  }
  return affine;
}

double Normalizer::normalize(double x, const Affine& affine, std::size_t dim) const {
  if (is_lerobot(form_)) {
    const float shifted = to_float(x) - to_float(affine.offset[dim]), scale = to_float(affine.scale[dim]);
    return is_quantile(form_) ? 2.0F * shifted / scale - 1.0F : shifted / scale;
  }
  const double scaled = (x - affine.offset[dim]) / affine.scale[dim];
  return is_quantile(form_) ? scaled * 2.0 - 1.0 : scaled;
}

template <class Number>
double Normalizer::unnormalize(Number x, const Affine& affine, double scale, std::size_t dim) const {
  if (dim >= affine.known && form_ != Normalization::z_score) return static_cast<double>(x);
  if (!is_quantile(form_)) return static_cast<double>(x) * scale + affine.offset[dim];
  const Number fraction = (x + Number{1}) / Number{2};
  return static_cast<double>(fraction) * scale + affine.offset[dim];
}

double Normalizer::unnormalize_action(float x, std::size_t dim) const {
  const double scale = actions_.scale_back[dim];
  if (!is_lerobot(form_) || dim >= actions_.known) return unnormalize(x, actions_, scale, dim);
  const float offset = to_float(actions_.offset[dim]);
  return is_quantile(form_) ? (x + 1.0F) * to_float(scale) / 2.0F + offset : x * to_float(scale) + offset;
}

std::vector<double> Normalizer::normalize_state(std::span<const double> state) const {
  std::vector<double> normalized(state.size());
  for (std::size_t dim = 0; dim < state.size(); ++dim) normalized[dim] = normalize(state[dim], state_, dim);
  return normalized;
}

std::vector<double> Normalizer::unnormalize_state(std::span<const double> state) const {
  std::vector<double> plain(state.size());
  for (std::size_t dim = 0; dim < state.size(); ++dim) {
    plain[dim] = unnormalize(state[dim], state_, state_.scale[dim], dim);
  }
  return plain;
}

std::vector<double> Normalizer::unnormalize_actions(std::span<const float> chunk) const {
  const std::size_t action_dim = actions_.offset.size();
  std::vector<double> plain(chunk.size());
  for (std::size_t i = 0; i < chunk.size(); ++i) plain[i] = unnormalize_action(chunk[i], i % action_dim);
  return plain;
}

std::vector<float> Normalizer::normalize_action(std::span<const double> action) const {
  std::vector<float> normalized(action.size());
  for (std::size_t dim = 0; dim < action.size(); ++dim) {
    const bool as_it_is = dim >= actions_.known && form_ != Normalization::z_score;
    normalized[dim] = to_float(as_it_is ? action[dim] : normalize(action[dim], actions_, dim));
  }
  return normalized;
}

}  // namespace pi0::policy
