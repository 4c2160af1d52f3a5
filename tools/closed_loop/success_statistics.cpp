#include "tools/closed_loop/success_statistics.h"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace pi0::tools {

std::pair<double, double> wilson_interval(long succeeded, long episodes) {
  constexpr double z = 1.959963984540054;  // 97.5 % of the normal distribution lie below
  const auto n = static_cast<double>(episodes);
  const double rate = static_cast<double>(succeeded) / n;
  const double scale = 1 / (1 + z * z / n);
  const double center = scale * (rate + z * z / (2 * n));
  const double half = scale * z * std::sqrt(rate * (1 - rate) / n + z * z / (4 * n * n));
  // Rounding must not push the ends of 0 and n successes off their values.
  return {succeeded == 0 ? 0 : center - half, succeeded == episodes ? 1 : center + half};
}

PairedTest mcnemar_test(const std::vector<bool>& first, const std::vector<bool>& second) {
  PairedTest test;
  for (std::size_t i = 0; i < first.size(); ++i) {
    test.only_first += first[i] && !second[i] ? 1 : 0;
    test.only_second += !first[i] && second[i] ? 1 : 0;
  }
  const long differ = test.only_first + test.only_second;
  if (differ == 0) return test;
  const boost::math::binomial_distribution<double> by_chance(static_cast<double>(differ), 0.5);
  test.p = std::min(1.0, 2 * cdf(by_chance, static_cast<double>(std::min(test.only_first, test.only_second))));
  return test;
}

Mean mean_of(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  if (values.size() < 2) return {mean, std::nullopt};
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  const double error = std::sqrt(squares / (n - 1) / n);
  const double half = error * quantile(boost::math::students_t_distribution<double>(n - 1), 0.975);
  return {mean, std::pair(mean - half, mean + half)};
}

}  // namespace pi0::tools
