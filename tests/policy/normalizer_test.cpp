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
