#include "model/policy/normalizer.h"

#include <cmath>

namespace pi0::policy {
namespace {

constexpr double no_zero_scale = 1e-6;  // openpi's guard against dividing by zero where a dimension is constant

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
  const bool quantile = form_ == Normalization::quantile;
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
  affine.scale.assign(at_most, 1.0 + no_zero_scale);
  for (std::size_t dim = 0; dim < affine.known; ++dim) {
    const auto check = [&](const char* key, double value) {
      if (dim >= used || std::isfinite(value)) return;
      throw NormStatsError(where + "." + key + "[" + std::to_string(dim) + "]: is not finite, expected a number");
    };
    check(quantile ? "q01" : "mean", affine.offset[dim]);
    check(quantile ? "q99" : "std", quantile ? stats.q99[dim] : stats.std[dim]);
    const double range = quantile ? stats.q99[dim] - stats.q01[dim] : stats.std[dim];
    affine.scale[dim] = range + no_zero_scale;
  }
  return affine;
}

std::vector<double> Normalizer::normalize_state(std::span<const double> state) const {
  std::vector<double> normalized(state.size());
  for (std::size_t dim = 0; dim < state.size(); ++dim) {
    const double scaled = (state[dim] - state_.offset[dim]) / state_.scale[dim];
    normalized[dim] = form_ == Normalization::quantile ? scaled * 2.0 - 1.0 : scaled;
  }
  return normalized;
}

template <class Number>
double Normalizer::unnormalize(Number x, const Affine& affine, std::size_t dim) const {
  if (form_ == Normalization::z_score) {
    return static_cast<double>(x) * affine.scale[dim] + affine.offset[dim];
  }
  if (dim >= affine.known) return static_cast<double>(x);
  const Number fraction = (x + Number{1}) / Number{2};
  return static_cast<double>(fraction) * affine.scale[dim] + affine.offset[dim];
}

std::vector<double> Normalizer::unnormalize_state(std::span<const double> state) const {
  std::vector<double> plain(state.size());
  for (std::size_t dim = 0; dim < state.size(); ++dim) {
    plain[dim] = unnormalize(state[dim], state_, dim);
  }
  return plain;
}

std::vector<double> Normalizer::unnormalize_actions(std::span<const float> chunk) const {
  const std::size_t action_dim = actions_.offset.size();
  std::vector<double> plain(chunk.size());
  for (std::size_t i = 0; i < chunk.size(); ++i) {
    plain[i] = unnormalize(chunk[i], actions_, i % action_dim);
  }
  return plain;
}

}  // namespace pi0::policy
