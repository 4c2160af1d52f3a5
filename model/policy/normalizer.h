// Normalises states to the range that a model was trained on, and converts actions back to the robot's units.
// Reference: Normalize and Unnormalize of openpi's src/openpi/transforms.py, bit for bit as NumPy's float64; LeRobot's
// processor/normalize_processor.py, bit for bit as torch's float32.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/policy/norm_stats.h"

namespace pi0::policy {

enum class Normalization {
  quantile,  // 1st percentile to -1, 99th to 1
  z_score,   // mean to 0, standard deviation to 1
  // The same as LeRobot computes them: in float32, with another guard against division by zero.
  lerobot_quantile,
  lerobot_z_score,
};

class Normalizer {
 public:
  // `state_size` and `action_size` are the robot's, `action_dim` (N) the model's. Throws NormStatsError if the file
  // lacks the percentiles that `form` needs, has fewer values than a state or more than N, or if one that is needed is
  // not finite.
  Normalizer(Normalization form, const NormStats& stats, std::int64_t state_size, std::int64_t action_size,
             std::int64_t action_dim);

  // `state` has at most as many values as the statistics of the state.
  std::vector<double> normalize_state(std::span<const double> state) const;

  // The inverse of normalize_state for N values, padded as the model sees them. Values past the length of the
  // statistics stay as they are (quantile and LeRobot) or have mean 0 and standard deviation 1 (z-score).
  std::vector<double> unnormalize_state(std::span<const double> state) const;

  // Row-major [A, N], in the model's float32. As in openpi, the quantile form maps [-1, 1] to [0, 1] in float32 and
  // continues in float64. LeRobot's forms are float32 throughout.
  std::vector<double> unnormalize_actions(std::span<const float> chunk) const;

  // The inverse for one action of at most N values, to float32 rounding.
  std::vector<float> normalize_action(std::span<const double> action) const;

 private:
  // normalised = (x - offset) / scale, in the quantile forms times 2 minus 1. Padded to N values.
  struct Affine {
    std::vector<double> offset;
    std::vector<double> scale;
    std::vector<double> scale_back;  // of actions: LeRobot's z-score adds its epsilon on the way in only
    std::size_t known = 0;           // values that the statistics cover
  };
  Affine affine(const FieldStats& stats, const std::string& where, std::size_t at_least, std::size_t used,
                std::size_t at_most) const;
  double normalize(double x, const Affine& affine, std::size_t dim) const;
  template <class Number>
  double unnormalize(Number x, const Affine& affine, double scale, std::size_t dim) const;
  double unnormalize_action(float x, std::size_t dim) const;

  Normalization form_;
  Affine state_;
  Affine actions_;
};

}  // namespace pi0::policy
