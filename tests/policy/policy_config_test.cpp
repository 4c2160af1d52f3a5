#include "model/policy/policy_config.h"

#include <unistd.h>

#include "policy/policy_fixtures.h"
#include "support/catch.h"

namespace pi0::policy {
namespace {

const nlohmann::json* transform_of(const nlohmann::json& list, const std::string& name) {
  for (const nlohmann::json& item : list) {
    if (item["transform"] == name) return &item;
  }
  return nullptr;
}

// pi0_droid's file with one key replaced, or removed when `value` is discarded.
std::string refusal(const std::string& key, const std::string& value) {
  auto json = nlohmann::json::parse(std::ifstream("../configs/policies/pi0_droid.json"));
  if (value.empty()) {
    json.erase(key);
  } else {
    json[key] = nlohmann::json::parse(value);
  }
  const auto file =
      std::filesystem::temp_directory_path() / ("pi0_config_" + std::to_string(getpid()) + ".json");
  std::ofstream(file) << json.dump();
  const std::string error = error_of<PolicyConfigError>([&] { read_policy_config(file); });
  std::filesystem::remove(file);
  return error;
}

}  // namespace

TEST_CASE("every config equals openpi's own", "[policy][config]") {
  const nlohmann::json openpi = golden_json("openpi_configs.json");
  for (const std::string& name : policy_names()) {
    INFO(name);
    const PolicyConfig config = policy_config(name);
    const nlohmann::json& golden = openpi.at(name);
    REQUIRE(config.name == name);
    REQUIRE(config.pi05 == golden["pi05"]);
    REQUIRE(config.paligemma_variant == golden["paligemma_variant"]);
    REQUIRE(config.action_expert_variant == golden["action_expert_variant"]);
    REQUIRE(config.action_dim == golden["action_dim"]);
    REQUIRE(config.action_horizon == golden["action_horizon"]);
    REQUIRE(config.max_token_len == golden["max_token_len"]);
    REQUIRE(config.discrete_state_input == golden["discrete_state_input"]);
    REQUIRE(config.asset_id == golden["asset_id"]);
    REQUIRE((config.normalization == Normalization::quantile) == golden["use_quantile_norm"]);
    REQUIRE(golden["metadata"].is_null());
    REQUIRE(config.metadata.entries().empty());

    REQUIRE(config.robot == "droid");
    REQUIRE(transform_of(golden["input_transforms"], "DroidInputs") != nullptr);
    REQUIRE(transform_of(golden["output_transforms"], "DroidOutputs") != nullptr);
    const nlohmann::json* absolute = transform_of(golden["output_transforms"], "AbsoluteActions");
    REQUIRE(
        config.delta_action_mask ==
        (absolute != nullptr ? (*absolute)["mask"].get<std::vector<bool>>() : std::vector<bool>()));

    const auto& model_transforms = golden["model_transforms"];
    REQUIRE((*transform_of(model_transforms, "InjectDefaultPrompt"))["prompt"].is_null());
    REQUIRE_FALSE(config.default_prompt.has_value());
    const nlohmann::json& tokenize = *transform_of(model_transforms, "TokenizePrompt");
    REQUIRE(config.discrete_state_input == tokenize["discrete_state_input"]);
    REQUIRE(config.max_token_len == tokenize["max_len"]);
  }
}

TEST_CASE("every DROID policy of openpi is known", "[policy][config]") {
  const nlohmann::json openpi = golden_json("openpi_configs.json");
  std::vector<std::string> droid;
  for (const auto& [name, golden] : openpi.items()) {
    if (transform_of(golden["input_transforms"], "DroidInputs") != nullptr) droid.push_back(name);
  }
  REQUIRE(policy_names() == droid);
}

TEST_CASE("an unknown config name lists the known ones", "[policy][config]") {
  const std::string error = error_of<PolicyConfigError>([] { policy_config("pi05_driod"); });
  REQUIRE_THAT(error, contains_text("'pi05_driod'"));
  for (const std::string& name : policy_names()) REQUIRE_THAT(error, contains_text(name));
}

TEST_CASE("read_policy_config reads a user's file as it reads our own", "[policy][config]") {
  const PolicyConfig config =
      read_policy_config("../configs/policies/pi05_droid_jointpos_polaris.json");
  REQUIRE(config.name == "pi05_droid_jointpos_polaris");
  REQUIRE(config.action_horizon == 15);
  REQUIRE(refusal("max_token_len", "48").empty());
  REQUIRE(refusal("default_prompt", "\"fold\"").empty());
  REQUIRE(refusal("metadata", R"({"reset_pose": [0, -1.5], "arm": {"left": null}})").empty());
}

TEST_CASE("read_policy_config names file and key of what it refuses", "[policy][config]") {
  REQUIRE_THAT(refusal("action_horizon", ""), contains_text("'action_horizon' is missing"));
  REQUIRE_THAT(refusal("action_horizn", "1"), contains_text("unknown key 'action_horizn'"));
  REQUIRE_THAT(refusal("action_horizon", "1.5"),
               contains_text("'action_horizon' is 1.5, expected a positive integer"));
  REQUIRE_THAT(refusal("action_horizon", "0"), contains_text("expected a positive integer"));
  REQUIRE_THAT(refusal("action_horizon", "true"), contains_text("expected a positive integer"));
  REQUIRE_THAT(refusal("action_dim", "7"), contains_text("'action_dim' is 7, too small"));
  REQUIRE_THAT(refusal("pi05", "1"), contains_text("'pi05' is 1, expected true or false"));
  REQUIRE_THAT(refusal("asset_id", "\"\""), contains_text("'asset_id' is \"\""));
  REQUIRE_THAT(refusal("normalization", "\"minmax\""),
               contains_text("\"quantile\" or \"z_score\""));
  REQUIRE_THAT(refusal("robot", "\"spot\""), contains_text("unknown robot 'spot'; known: droid"));
  REQUIRE_THAT(refusal("paligemma_variant", "\"gemma_9b\""), contains_text("gemma_2b"));
  REQUIRE_THAT(refusal("delta_action_mask", "[true, 0]"),
               contains_text("a list of true and false"));
  REQUIRE_THAT(refusal("default_prompt", "null"), contains_text("'default_prompt' is null"));
  REQUIRE_THAT(refusal("metadata", "[]"), contains_text("'metadata' is [], expected an object"));
  REQUIRE_THAT(refusal("discrete_state_input", "true"), contains_text("only a Pi0.5 model"));
  REQUIRE_THAT(refusal("pi05", "1"), contains_text(".json: "));
  REQUIRE_THAT(error_of<PolicyConfigError>([] { read_policy_config("goldens/absent.json"); }),
               contains_text("goldens/absent.json: cannot be opened"));
}

TEST_CASE("metadata keeps order and types", "[policy][config]") {
  const auto file =
      std::filesystem::temp_directory_path() / ("pi0_meta_" + std::to_string(getpid()) + ".json");
  auto json = nlohmann::ordered_json::parse(std::ifstream("../configs/policies/pi0_droid.json"));
  json["metadata"] = nlohmann::ordered_json::parse(R"({"z": [0, -1.5], "a": {"on": true}})");
  std::ofstream(file) << json.dump();
  const PolicyConfig config = read_policy_config(file);
  std::filesystem::remove(file);
  REQUIRE(config.metadata.entries()[0].first == "z");
  REQUIRE(config.metadata.entries()[1].first == "a");
  const auto& pose = std::get<protocol::List>(*config.metadata.find("z"));
  REQUIRE(std::get<std::int64_t>(pose.items[0]) == 0);
  REQUIRE(std::get<double>(pose.items[1]) == -1.5);
}

TEST_CASE("model_config is openpi's full model", "[policy][config]") {
  const model::ModelConfig config = model_config(policy_config("pi05_droid"));
  REQUIRE(config.pi05);
  REQUIRE(config.paligemma == model::gemma_variant("gemma_2b"));
  REQUIRE(config.action_expert == model::gemma_variant("gemma_300m"));
  REQUIRE(config.vision == model::siglip_so400m());
  REQUIRE(config.vocab_size == 257152);
  REQUIRE(config.action_dim == 32);
  REQUIRE(config.action_horizon == 15);
  REQUIRE(config.max_token_len == 200);
}

TEST_CASE("check_architecture names key and both values", "[policy][config]") {
  const std::string source = "goldens/policies/pi05_droid/architecture.json";
  const model::ModelConfig tiny = model::read_architecture(source);
  const auto refused = [&](const std::string& name) {
    return error_of<PolicyConfigError>(
        [&] { check_architecture(policy_config(name), tiny, source); });
  };
  REQUIRE(refused("pi05_droid").empty());
  REQUIRE_THAT(
      refused("pi05_droid_finetune"),
      contains_text(source + ": 'action_horizon' is 15, config pi05_droid_finetune says 16"));
  REQUIRE_THAT(refused("pi0_droid"), contains_text("'pi05' is true, config pi0_droid says false"));
}

}  // namespace pi0::policy
