#include "tools/bench/median_interval.h"

#include <algorithm>
#include <cmath>

namespace pi0::tools {
namespace {

// The probability that exactly `k` of `n` values lie below the median.
double probability_below(std::size_t k, std::size_t n) {
  const auto log_factorial = [](std::size_t i) { return std::lgamma(static_cast<double>(i) + 1); };
  return std::exp(log_factorial(n) - log_factorial(k) - log_factorial(n - k) - static_cast<double>(n) * std::log(2.0));
}

}  // namespace

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

std::optional<MedianInterval> median_interval(std::vector<double> values) {
  if (values.size() < least_for_interval) return std::nullopt;
  std::ranges::sort(values);
  std::size_t cut = 0;  // values that are left out at each end
  double outside = 2 * probability_below(0, values.size());
  while ((outside += 2 * probability_below(cut + 1, values.size())) <= 0.05) ++cut;
  return MedianInterval{median(values), values[cut], values[values.size() - 1 - cut]};
}

}  // namespace pi0::tools
