#include "model/model_config.h"

#include "support/catch.h"
#include "support/temporary_folder.h"

namespace pi0 {
namespace {

TEST_CASE("architecture.json is read back as it was written", "[model]") {
  const test::TemporaryFolder folder;
  for (const bool pi05 : {true, false}) {
    const model::ModelConfig config = model::tiny_config(pi05);
    test::write_all(folder.path() / "architecture.json", model::architecture_json(config));
    CHECK(model::read_architecture(folder.path() / "architecture.json") == config);
  }
  CHECK(model::read_architecture("goldens/tiny_pi05/architecture.json") == model::tiny_config(true));
}

TEST_CASE("a wrong architecture.json is refused by file and key", "[model]") {
  const test::TemporaryFolder folder;
  const std::string good = model::architecture_json(model::tiny_config(true));
  const auto refusal = [&](const std::string& from, const std::string& to) -> std::string {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    test::write_all(folder.path() / "architecture.json", text);
    try {
      model::read_architecture(folder.path() / "architecture.json");
    } catch (const std::invalid_argument& error) {
      CHECK_THAT(error.what(), contains_text("architecture.json"));
      return error.what();
    }
    return "accepted";
  };
  CHECK_THAT(refusal("\"pi05\"", "\"pi06\""), contains_text("pi05"));
  CHECK_THAT(refusal("\"vocab_size\": 512", "\"vocab_size\": 512, \"colour\": 1"), contains_text("colour"));
  CHECK_THAT(refusal("\"vocab_size\": 512", "\"vocab_size\": -1"), contains_text("vocab_size"));
  CHECK_THAT(refusal("\"vocab_size\": 512", "\"vocab_size\": \"many\""), contains_text("many"));
  CHECK_THAT(refusal("\"pi05\": true", "\"pi05\": 1"), contains_text("true or false"));
  CHECK_THAT(refusal("\"depth\": 4", "\"depth\": 3"), contains_text("differ in depth"));
  CHECK_THAT(refusal("\"num_heads\": 3", "\"num_heads\": 5"), contains_text("vision"));
  CHECK_THAT(refusal("\"num_steps\": 10", "\"num_steps\": 1001"), contains_text("num_steps"));
  CHECK_THAT(refusal("{", "["), contains_text("not valid JSON"));
  CHECK_THROWS_WITH(model::read_architecture(folder.path() / "absent.json"), contains_text("cannot be opened"));
}

TEST_CASE("an unknown Gemma variant is answered with the known ones", "[model]") {
  CHECK_THROWS_WITH(model::gemma_variant("gemma_9b"), contains_text("gemma_9b") && contains_text("gemma_300m"));
}

}  // namespace
}  // namespace pi0
