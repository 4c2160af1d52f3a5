// How well a few measurements know their median.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace pi0::tools {

double median(std::vector<double> values);

struct MedianInterval {
  double median, low, high;
};

// Measurements that an interval takes at least: five lie on one side of the median in 1 of 16 times.
inline constexpr std::size_t least_for_interval = 6;

// Two of the values, between which the median of what is measured lies with a probability of at least 95 %, however its
// values are distributed; none for fewer than least_for_interval.
std::optional<MedianInterval> median_interval(std::vector<double> values);

}  // namespace pi0::tools
