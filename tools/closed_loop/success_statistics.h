// What a number of successful episodes tells of a policy.
#pragma once

#include <optional>
#include <utility>
#include <vector>

namespace pi0::tools {

// Wilson's score interval of a rate at 95 %, {low, high}; `episodes` is at least 1.
std::pair<double, double> wilson_interval(long succeeded, long episodes);

// The episodes in which two runs over the same seeds differ, and McNemar's exact two-sided test of them.
struct PairedTest {
  long only_first = 0, only_second = 0;  // succeeded in one run and not in the other
  double p = 1;                          // of such a difference, or a larger one, by chance
};
// Both have an entry for each episode, in the same order.
PairedTest mcnemar_test(const std::vector<bool>& first, const std::vector<bool>& second);

// The mean and its 95 % interval by Student's t; no interval for a single value. `values` has at least one.
struct Mean {
  double value;
  std::optional<std::pair<double, double>> interval;
};
Mean mean_of(const std::vector<double>& values);

}  // namespace pi0::tools
