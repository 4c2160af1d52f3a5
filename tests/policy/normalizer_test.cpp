#include "model/policy/normalizer.h"

#include <limits>

#include "policy/policy_fixtures.h"
#include "support/catch.h"

namespace pi0::policy {
namespace {

using Doubles = std::vector<double>;

FieldStats field_stats(const nlohmann::json& json) {
  return {json["mean"].get<Doubles>(), json["std"].get<Doubles>(), json["q01"].get<Doubles>(),
          json["q99"].get<Doubles>()};
}

FieldStats plain_stats(std::size_t size) {
  return {Doubles(size, 0.0), Doubles(size, 1.0), Doubles(size, -1.0), Doubles(size, 1.0)};
}

}  // namespace

TEST_CASE("Normalizer equals openpi's transforms in every bit", "[policy][normalizer]") {
  const nlohmann::json cases = golden_json("normalize.json");
  REQUIRE(cases.size() == 6);  // both forms, with statistics of 8, 10 and 32 values
  for (const nlohmann::json& golden : cases) {
    const auto form = golden["normalization"] == "quantile" ? Normalization::quantile : Normalization::z_score;
    const NormStats stats{field_stats(golden["norm_stats"]["state"]), field_stats(golden["norm_stats"]["actions"]),
                          "golden"};
    const Normalizer normalizer(form, stats, 8, 8, 32);

    Doubles state = normalizer.normalize_state(golden["state"].get<Doubles>());
    REQUIRE(state == golden["normalized"].get<Doubles>());
    state.resize(32, 0.0);
    REQUIRE(normalizer.unnormalize_state(state) == golden["plain_state"].get<Doubles>());

    std::vector<float> chunk;
    Doubles plain_actions;
    for (const auto& row : golden["chunk"]) {
      for (const double value : row) chunk.push_back(static_cast<float>(value));
    }
    for (const auto& row : golden["plain_actions"]) {
      for (const double value : row) plain_actions.push_back(value);
    }
    REQUIRE(normalizer.unnormalize_actions(chunk) == plain_actions);
  }
}

// What LeRobot's formulas give in torch's float32: a plain dimension, a constant one and one that hardly varies.
TEST_CASE("Normalizer equals LeRobot's processors in every bit", "[policy][normalizer][lerobot]") {
  const Doubles mean = {0.1, 0.2, 0.3, 0.1}, deviation = {0.7, 1.3, 0.0, 1e-9};
  const Doubles low = {-0.9, -1.1, 0.25, 0.0}, high = {1.3, 0.7, 0.25, 3e-9};
  const FieldStats stats{mean, deviation, low, high};
  const Doubles state = {0.3, -1.7, 2.5, 0.1};
  const std::vector<float> chunk = {0.3F, -1.7F, 2.5F, 0.1F, 0.5F, -0.5F};  // two of them are padding

  const Normalizer z_score(Normalization::lerobot_z_score, {stats, stats, "here"}, 4, 4, 6);
  Doubles normalized = z_score.normalize_state(state);
  CHECK(normalized == Doubles{0.285714328289032, -1.461538553237915, 220000000.0, 0.0});
  CHECK(z_score.unnormalize_actions(chunk) ==
        Doubles{0.3100000023841858, -2.009999990463257, 0.30000001192092896, 0.10000000149011612, 0.5, -0.5});
  for (std::size_t i = 0; i < state.size(); ++i) {
    CHECK(z_score.unnormalize_state(normalized)[i] == Approx(state[i]).margin(1e-6));
  }

  const Normalizer quantile(Normalization::lerobot_quantile, {stats, stats, "here"}, 4, 4, 6);
  normalized = quantile.normalize_state(state);
  CHECK(normalized == Doubles{0.09090924263000488, -1.6666667461395264, 450000000.0, 66666668.0});
  CHECK(quantile.unnormalize_actions(chunk) ==
        Doubles{0.529999852180481, -1.7300000190734863, 0.2500000298023224, 1.6500000254993097e-09, 0.5, -0.5});
  for (std::size_t i = 0; i < state.size(); ++i) {
    CHECK(quantile.unnormalize_state(normalized)[i] == Approx(state[i]).margin(1e-6));
  }
}

TEST_CASE("Normalizer takes its own actions back", "[policy][normalizer]") {
  FieldStats actions = plain_stats(6);
  actions.mean[1] = 0.5;
  actions.std[1] = 3;
  actions.q01[2] = 0.5;
  actions.q99[2] = 0.75;
  actions.std[3] = 0;  // constant
  actions.mean[3] = actions.q01[3] = actions.q99[3] = 0.25;
  const std::vector<float> chunk = {0.3F, -1.7F, 2.5F, 0.0F, 0.5F, -0.5F, 0.25F, -2.0F};  // two without statistics
  for (const auto form : {Normalization::quantile, Normalization::z_score, Normalization::lerobot_quantile,
                          Normalization::lerobot_z_score}) {
    INFO(static_cast<int>(form));
    const Normalizer normalizer(form, {plain_stats(8), actions, "here"}, 8, 8, 8);
    const std::vector<float> back = normalizer.normalize_action(normalizer.unnormalize_actions(chunk));
    for (std::size_t i = 0; i < chunk.size(); ++i) {
      INFO(i);
      // A constant action of LeRobot's float32 does not tell what the model's was: it is -1 as in training.
      const bool lost = i == 3 && form == Normalization::lerobot_quantile;
      CHECK(back[i] == Approx(lost ? -1.0F : chunk[i]).margin(1e-6));
    }
  }
}

TEST_CASE("Normalizer refuses statistics that do not fit", "[policy][normalizer]") {
  const auto refusal = [](Normalization form, const FieldStats& state, const FieldStats& actions) {
    return error_of<NormStatsError>([&] { Normalizer(form, {state, actions, "norm_stats.json"}, 8, 8, 32); });
  };
  const FieldStats good = plain_stats(8);
  REQUIRE(refusal(Normalization::quantile, good, plain_stats(32)).empty());
  REQUIRE_THAT(refusal(Normalization::z_score, plain_stats(7), good),
               contains_text("norm_stats.json: norm_stats.state.mean: has 7 values, expected 8 to 32"));
  REQUIRE_THAT(refusal(Normalization::quantile, good, plain_stats(33)),
               contains_text("norm_stats.actions.q01: has 33 values, expected 1 to 32"));
  FieldStats without_percentiles = good;
  without_percentiles.q01.clear();
  without_percentiles.q99.clear();
  REQUIRE_THAT(refusal(Normalization::quantile, good, without_percentiles),
               contains_text("norm_stats.actions: 'q01' and 'q99' are missing"));
  REQUIRE(refusal(Normalization::z_score, good, without_percentiles).empty());

  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  FieldStats state = good, actions = plain_stats(32);
  state.mean[0] = state.std[3] = actions.mean[0] = nan;  // which this form does not use
  actions.q01[8] = actions.q99[31] = nan;                // which the robot does not have
  REQUIRE(refusal(Normalization::quantile, state, actions).empty());
  REQUIRE_THAT(refusal(Normalization::z_score, state, good), contains_text("norm_stats.state.mean[0]: is not finite"));
  actions.q99[7] = nan;
  REQUIRE_THAT(refusal(Normalization::quantile, good, actions),
               contains_text("norm_stats.actions.q99[7]: is not finite"));
}

}  // namespace pi0::policy
