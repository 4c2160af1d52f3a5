#include "tools/bench/median_interval.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

#include "support/catch.h"

using pi0::tools::median_interval;

namespace {

std::vector<double> shuffled_numbers(std::size_t count) {  // 1, 2, ...
  std::vector<double> values(count);
  std::iota(values.begin(), values.end(), 1);
  std::shuffle(values.begin(), values.end(), std::mt19937(count));
  return values;
}

}  // namespace

TEST_CASE("a median's interval has the ranks of the sign test's tables", "[median_interval]") {
  struct Ranks {
    std::size_t count;
    double low, high;
  };
  for (const auto& [count, low, high] : {Ranks{6, 1, 6},
                                         {8, 1, 8},
                                         {9, 2, 8},
                                         {11, 2, 10},
                                         {12, 3, 10},
                                         {15, 4, 12},
                                         {20, 6, 15},
                                         {30, 10, 21},
                                         {100, 40, 61},
                                         {3000, 1446, 1555}}) {
    CAPTURE(count);
    const auto found = median_interval(shuffled_numbers(count));
    REQUIRE(found);
    CHECK(found->low == low);
    CHECK(found->high == high);
    CHECK(found->median == (1 + static_cast<double>(count)) / 2);
  }
  for (std::size_t count = 0; count < 6; ++count) CHECK_FALSE(median_interval(shuffled_numbers(count)));
}

TEST_CASE("a median's interval does not follow a value far off", "[median_interval]") {
  const auto found = median_interval({5, 3, 4, 1000, 1, 2, 6, 8, 7});
  REQUIRE(found);
  CHECK(found->median == 5);
  CHECK(found->high == 8);
}
