// The median and the largest of some values.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace pi0::server {

struct Spread {
  double median, worst;
};

// At least one value, of which it changes the order. Of an even number, the median is the lower of the middle two.
inline Spread spread_of(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::ranges::nth_element(values, middle);
  return {*middle, *std::ranges::max_element(values)};
}

}  // namespace pi0::server
