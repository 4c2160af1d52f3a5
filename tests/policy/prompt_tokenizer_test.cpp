#include "model/policy/prompt_tokenizer.h"

#include <unistd.h>

#include <cmath>
#include <limits>

#include "policy/policy_fixtures.h"
#include "support/catch.h"

namespace pi0::policy {
namespace {

PromptTokenizer tiny_tokenizer() { return PromptTokenizer::from_file("goldens/tiny_tokenizer.model", 512); }

void check_goldens(const std::string& file, std::size_t count) {
  const PromptTokenizer tokenizer = tiny_tokenizer();
  const nlohmann::json rows = golden_json(file);
  REQUIRE(rows.size() == count);
  for (const nlohmann::json& row : rows) {
    const auto prompt = row["prompt"].get<std::string>();
    const auto length = row["max_token_len"].get<std::int64_t>();
    INFO(prompt << " " << row["state"].dump() << " " << length);
    const PromptTokens found = row["state"].is_null()
                                   ? tokenizer.encode(prompt, length)
                                   : tokenizer.encode(prompt, row["state"].get<std::vector<double>>(), length);
    std::vector<int> mask(static_cast<std::size_t>(length), 0);
    std::fill_n(mask.begin(), found.used, 1);
    REQUIRE(found.tokens == row["tokens"].get<std::vector<std::int64_t>>());
    REQUIRE(mask == row["mask"].get<std::vector<int>>());
    REQUIRE(std::min(found.needed, length) == found.used);
  }
}

}  // namespace

TEST_CASE("PromptTokenizer equals openpi's", "[policy][tokenizer]") { check_goldens("tokenizer.json", 30); }

TEST_CASE("PromptTokenizer equals openpi's on odd white space and characters", "[policy][tokenizer]") {
  check_goldens("tokenizer_more.json", 78);
}

TEST_CASE("encode_as_sent cleans nothing", "[policy][tokenizer][lerobot]") {
  const PromptTokenizer tokenizer = tiny_tokenizer();
  const auto tokens = [&](const std::string& prompt) { return tokenizer.encode_as_sent(prompt, 48).tokens; };
  CHECK(tokens("pick up the fork") == tokenizer.encode("pick up the fork", 48).tokens);
  CHECK(tokens("pick up the fork\n") == tokens("pick up the fork"));
  CHECK(tokens("pick_up") != tokens("pick up"));
  CHECK(tokens(" pick up") != tokens("pick up"));
  CHECK(tokenizer.encode("pick_up", 48).tokens == tokens("pick up"));
}

TEST_CASE("state_bin places values as np.digitize does", "[policy][tokenizer]") {
  REQUIRE(state_bin(-1.0) == 0);
  REQUIRE(state_bin(std::nextafter(-1.0, -2.0)) == -1);
  REQUIRE(state_bin(-7.5) == -1);
  REQUIRE(state_bin(0.0) == 128);
  REQUIRE(state_bin(-std::numeric_limits<double>::denorm_min()) == 127);
  REQUIRE(state_bin(1.0 - 1.0 / 128) == 255);
  REQUIRE(state_bin(std::nextafter(1.0 - 1.0 / 128, 0.0)) == 254);
  REQUIRE(state_bin(1.0) == 255);
  REQUIRE(state_bin(1e300) == 255);
  REQUIRE(state_bin(std::numeric_limits<double>::infinity()) == 255);
  REQUIRE(state_bin(-std::numeric_limits<double>::infinity()) == -1);
  REQUIRE(state_bin(std::numeric_limits<double>::quiet_NaN()) == 255);
}

TEST_CASE("PromptTokenizer says how long a cut prompt was", "[policy][tokenizer]") {
  const PromptTokens cut = tiny_tokenizer().encode("one two three four five six", 4);
  REQUIRE(cut.tokens.size() == 4);
  REQUIRE(cut.used == 4);
  REQUIRE(cut.needed > 4);
}

TEST_CASE("PromptTokenizer names the file that it cannot use", "[policy][tokenizer]") {
  const auto refusal = [](const std::filesystem::path& file, std::int64_t vocab_size) {
    return error_of<TokenizerError>([&] { PromptTokenizer::from_file(file, vocab_size); });
  };
  REQUIRE_THAT(refusal("goldens/absent.model", 512), contains_text("goldens/absent.model: cannot be opened"));
  REQUIRE_THAT(refusal("goldens", 512), contains_text("goldens: is a folder"));
  REQUIRE_THAT(refusal("goldens/tokenizer.json", 512),
               contains_text("goldens/tokenizer.json: is not a SentencePiece model"));
  REQUIRE_THAT(refusal("goldens/tiny_tokenizer.model", 511),
               contains_text("has 512 pieces, the model's embedding has 511 rows"));
}

TEST_CASE("find_tokenizer looks beside the weights, then in openpi's cache", "[policy][tokenizer]") {
  REQUIRE(find_tokenizer("goldens/policies/pi05_droid") == "goldens/policies/pi05_droid/paligemma_tokenizer.model");
  const auto cache = std::filesystem::temp_directory_path() / ("pi0_cache_" + std::to_string(getpid()));
  setenv("OPENPI_DATA_HOME", cache.c_str(), 1);
  REQUIRE_THAT(error_of<TokenizerError>([] { find_tokenizer("goldens"); }),
               contains_text("goldens/paligemma_tokenizer.model") && contains_text(cache.string()));
  std::filesystem::create_directories(cache / "big_vision");
  std::filesystem::copy("goldens/tiny_tokenizer.model", cache / "big_vision/paligemma_tokenizer.model");
  REQUIRE(find_tokenizer("goldens") == cache / "big_vision/paligemma_tokenizer.model");
  std::filesystem::remove_all(cache);
  const std::string home = std::getenv("HOME");
  setenv("OPENPI_DATA_HOME", "~/openpi", 1);
  REQUIRE(openpi_data_home() == home + "/openpi");
  unsetenv("OPENPI_DATA_HOME");
  REQUIRE(openpi_data_home() == home + "/.cache/openpi");
}

}  // namespace pi0::policy
