#include "model/policy/state_range.h"

#include "policy/policy_fixtures.h"
#include "support/catch.h"

namespace pi0::policy {
namespace {

std::vector<std::uint64_t> outside(const StateRange& range) {
  std::vector<std::uint64_t> numbers;
  for (const StateRange::Count& count : range.counts()) numbers.push_back(count.outside);
  return numbers;
}

}  // namespace

TEST_CASE("state values out of range are counted, and each dimension is named once", "[policy][state]") {
  std::vector<std::string> warnings;
  StateRange range(robot_config("droid"), Normalization::quantile,
                   [&](const std::string& line) { warnings.push_back(line); });
  REQUIRE(range.counts().size() == 8);
  REQUIRE(range.counts()[3].dimension == "observation/joint_position[3]");
  REQUIRE(range.counts()[7].dimension == "observation/gripper_position");

  std::vector<double> state(32, 0.0);  // padded
  state[0] = 1.5, state[1] = -1.5, state[20] = 9;
  range.check(state);
  REQUIRE(warnings.empty());
  state[3] = 1.51, state[7] = -20;
  range.check(state);
  range.check(state);
  REQUIRE(outside(range) == std::vector<std::uint64_t>{0, 0, 0, 2, 0, 0, 0, 2});
  REQUIRE(warnings.size() == 1);
  REQUIRE_THAT(warnings[0], contains_text("after normalization observation/joint_position[3] is 1.510000, "
                                          "observation/gripper_position is -20.000000, expected at most 1.500000 in "
                                          "magnitude"));
  state[0] = 2;
  range.check(state);
  REQUIRE(warnings.size() == 2);
  REQUIRE_THAT(warnings[1], contains_text("after normalization observation/joint_position[0] is 2.000000, expected"));
}

TEST_CASE("the range of a z-score is five standard deviations", "[policy][state]") {
  for (const Normalization form : {Normalization::z_score, Normalization::lerobot_z_score}) {
    StateRange range(robot_config("libero"), form, [](const std::string&) {});
    std::vector<double> state(8, 5.0);
    state[2] = -5.1;
    range.check(state);
    REQUIRE(outside(range) == std::vector<std::uint64_t>{0, 0, 1, 0, 0, 0, 0, 0});
  }
}

}  // namespace pi0::policy
