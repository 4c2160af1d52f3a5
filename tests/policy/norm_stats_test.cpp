#include "model/policy/norm_stats.h"

#include <unistd.h>

#include <cmath>

#include "policy/policy_fixtures.h"
#include "support/catch.h"

namespace pi0::policy {
namespace {

// norm_stats.json of the given text in a folder that goes with the object.
class StatsFile {
 public:
  explicit StatsFile(const std::string& text) {
    std::filesystem::create_directories(path_.parent_path());
    std::ofstream(path_) << text;
  }
  ~StatsFile() { std::filesystem::remove_all(path_.parent_path()); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_ =
      std::filesystem::temp_directory_path() / ("pi0_stats_" + std::to_string(getpid())) / "norm_stats.json";
};

std::string refusal(const std::string& text) {
  const StatsFile file(text);
  const std::string error = error_of<NormStatsError>([&] { read_norm_stats(file.path()); });
  REQUIRE_THAT(error, contains_text("norm_stats.json"));
  return error;
}

const std::string actions = R"("actions": {"mean": [1, 2], "std": [3, 4]})";

}  // namespace

TEST_CASE("read_norm_stats reads openpi's file", "[policy][norm_stats]") {
  const NormStats stats = read_norm_stats(norm_stats_file("goldens/policies/pi05_droid", "droid"));
  const auto json = golden_json("policies/pi05_droid/assets/droid/norm_stats.json")["norm_stats"];
  REQUIRE(stats.state.mean == json["state"]["mean"].get<std::vector<double>>());
  REQUIRE(stats.state.std == json["state"]["std"].get<std::vector<double>>());
  REQUIRE(stats.actions.q01 == json["actions"]["q01"].get<std::vector<double>>());
  REQUIRE(stats.actions.q99 == json["actions"]["q99"].get<std::vector<double>>());
}

TEST_CASE("read_norm_stats takes statistics without percentiles", "[policy][norm_stats]") {
  const StatsFile file(R"({"norm_stats": {"state": {"mean": [1], "std": [2], "q01": null}, )" + actions + "}}");
  const NormStats stats = read_norm_stats(file.path());
  REQUIRE(stats.state.q01.empty());
  REQUIRE(stats.actions.std == std::vector<double>{3, 4});
}

TEST_CASE("read_norm_stats leaves numbers that are not finite to those who use them", "[policy][norm_stats]") {
  const StatsFile file(R"({"norm_stats": {"state": {"mean": [1, NaN], "std": [-Infinity, 2]}, )" + actions + "}}");
  const NormStats stats = read_norm_stats(file.path());
  REQUIRE(stats.state.mean[0] == 1);
  REQUIRE(std::isnan(stats.state.mean[1]));
  REQUIRE(std::isnan(stats.state.std[0]));
}

TEST_CASE("read_norm_stats names file and key of what it refuses", "[policy][norm_stats]") {
  const auto with_state = [](const std::string& state) {
    return R"({"norm_stats": {"state": )" + state + ", " + actions + "}}";
  };
  REQUIRE_THAT(refusal("{"), contains_text("not valid JSON"));
  REQUIRE_THAT(refusal("[]"), contains_text("expected an object"));
  REQUIRE_THAT(refusal(std::string(100'000, '[')), contains_text("nested more than 64 levels deep"));
  REQUIRE_THAT(refusal("{}"), contains_text("'norm_stats' is missing"));
  REQUIRE_THAT(refusal(R"({"norm_stats": {)" + actions + "}}"), contains_text("'state' is missing"));
  REQUIRE_THAT(refusal(with_state(R"({"std": [1]})")), contains_text("norm_stats.state: 'mean' is missing"));
  REQUIRE_THAT(refusal(with_state(R"({"mean": ["1"], "std": [1]})")),
               contains_text("mean[0]: is \"1\", expected a number"));
  REQUIRE_THAT(refusal(with_state(R"({"maen": [1], "std": [1]})")),
               contains_text("norm_stats.state: unknown key 'maen'; did you mean 'mean'?"));
  REQUIRE_THAT(refusal(with_state(R"({"mean": 1, "std": [1]})")), contains_text("expected a list"));
  REQUIRE_THAT(refusal(with_state(R"({"mean": [], "std": []})")), contains_text("is empty"));
  REQUIRE_THAT(refusal(with_state(R"({"mean": [1, 2], "std": [1]})")),
               contains_text("'mean' has 2 values, 'std' has 1"));
  REQUIRE_THAT(refusal(with_state(R"({"mean": [1], "std": [1], "q01": [1]})")),
               contains_text("'q01' has 1 values, 'q99' has 0"));
  REQUIRE_THAT(refusal(R"({"norm_stats": {"state": {"mean": [1], "std": [1]}, "speed": {}, )" + actions + "}}"),
               contains_text("unknown key 'speed'"));
}

TEST_CASE("read_norm_stats names a file that is not there", "[policy][norm_stats]") {
  const std::string error =
      error_of<NormStatsError>([] { read_norm_stats(norm_stats_file("goldens/policies/pi05_droid", "trossen")); });
  REQUIRE_THAT(error, contains_text("pi05_droid/assets/trossen/norm_stats.json: not found"));
}

}  // namespace pi0::policy
