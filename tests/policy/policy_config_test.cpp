#include "model/policy/policy_config.h"

#include <unistd.h>

#include <set>

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

nlohmann::json metadata_json(const protocol::Value& value) {
  if (const auto* dict = std::get_if<protocol::Dict>(&value)) {
    nlohmann::json json = nlohmann::json::object();
    for (const auto& [key, entry] : dict->entries()) json[key] = metadata_json(entry);
    return json;
  }
  if (const auto* list = std::get_if<protocol::List>(&value)) {
    nlohmann::json json = nlohmann::json::array();
    for (const protocol::Value& item : list->items) json.push_back(metadata_json(item));
    return json;
  }
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return *integer;
  return std::get<double>(value);
}

// pi0_droid's file with one key replaced, or removed when `value` is discarded.
std::string refusal(const std::string& key, const std::string& value) {
  auto json = nlohmann::json::parse(std::ifstream("../configs/policies/pi0_droid.json"));
  if (value.empty()) {
    json.erase(key);
  } else {
    json[key] = nlohmann::json::parse(value);
  }
  const auto file = std::filesystem::temp_directory_path() / ("pi0_config_" + std::to_string(getpid()) + ".json");
  std::ofstream(file) << json.dump();
  const std::string error = error_of<PolicyConfigError>([&] { read_policy_config(file); });
  std::filesystem::remove(file);
  return error;
}

// openpi itself cannot load its data config, so there is no dump of it.
const std::string without_golden = "paligemma_diffusion_droid";

}  // namespace

TEST_CASE("every config equals openpi's own", "[policy][config]") {
  const nlohmann::json openpi = golden_json("openpi_configs.json");
  for (const std::string& name : policy_names()) {
    if (name == without_golden) continue;
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
    REQUIRE(metadata_json(config.metadata) ==
            (golden["metadata"].is_null() ? nlohmann::json::object() : golden["metadata"]));

    const nlohmann::json* absolute = transform_of(golden["output_transforms"], "AbsoluteActions");
    REQUIRE(config.delta_action_mask ==
            (absolute != nullptr ? (*absolute)["mask"].get<std::vector<bool>>() : std::vector<bool>()));

    const auto& model_transforms = golden["model_transforms"];
    const nlohmann::json& prompt = (*transform_of(model_transforms, "InjectDefaultPrompt"))["prompt"];
    REQUIRE(config.default_prompt == (prompt.is_null() ? std::nullopt : std::optional(prompt.get<std::string>())));
    const nlohmann::json& tokenize = *transform_of(model_transforms, "TokenizePrompt");
    REQUIRE(config.discrete_state_input == tokenize["discrete_state_input"]);
    REQUIRE(config.max_token_len == tokenize["max_len"]);
  }
}

TEST_CASE("every config's robot is openpi's", "[policy][config]") {
  const nlohmann::json openpi = golden_json("openpi_configs.json");
  for (const std::string& name : policy_names()) {
    if (name == without_golden) continue;
    INFO(name);
    const nlohmann::json& golden = openpi.at(name);
    const RobotConfig robot = policy_config(name).robot;
    const nlohmann::json* aloha = transform_of(golden["input_transforms"], "AlohaInputs");
    const bool droid = transform_of(golden["input_transforms"], "DroidInputs") != nullptr;
    const bool libero = transform_of(golden["input_transforms"], "LiberoInputs") != nullptr;
    REQUIRE((aloha != nullptr) + droid + libero == 1);
    REQUIRE(robot.action_size == (aloha != nullptr ? 14 : droid ? 8 : 7));
    REQUIRE(robot.state_size() == (aloha != nullptr ? 14 : 8));
    REQUIRE(robot.adapt_to_pi == (aloha != nullptr && (*aloha)["adapt_to_pi"] == true));
    if (aloha == nullptr) continue;
    std::set<std::string> cameras(robot.unused_cameras.begin(), robot.unused_cameras.end());
    for (const RobotConfig::Camera& camera : robot.cameras) cameras.insert(camera.field);
    REQUIRE(cameras == (*aloha)["EXPECTED_CAMERAS"].get<std::set<std::string>>());
  }
}

TEST_CASE("every flow-matching policy of openpi is known", "[policy][config]") {
  std::set<std::string> expected = {without_golden};
  const nlohmann::json openpi = golden_json("openpi_configs.json");
  for (const auto& [name, golden] : openpi.items()) expected.insert(name);
  REQUIRE(expected.size() == 18);
  const std::vector<std::string> names = policy_names();
  REQUIRE(std::set<std::string>(names.begin(), names.end()) == expected);
}

TEST_CASE("paligemma_diffusion_droid is what openpi's roboarena_config.py says", "[policy][config]") {
  const PolicyConfig diffusion = policy_config(without_golden);
  const PolicyConfig droid = policy_config("pi0_droid");
  REQUIRE(diffusion.action_dim == 8);
  REQUIRE(diffusion.action_horizon == 10);
  REQUIRE(diffusion.max_token_len == droid.max_token_len);
  REQUIRE_FALSE(diffusion.pi05);
  REQUIRE(diffusion.normalization == Normalization::z_score);
  REQUIRE(diffusion.asset_id == "droid");
  REQUIRE(diffusion.delta_action_mask.empty());
  REQUIRE(diffusion.robot.action_size == 8);
}

TEST_CASE("an autoregressive policy is told from an unknown one", "[policy][config]") {
  for (const char* name : {"pi0_fast_droid", "pi0_fast_libero", "paligemma_fast_droid", "paligemma_vq_droid"}) {
    REQUIRE_THAT(error_of<PolicyConfigError>([&] { policy_config(name); }),
                 contains_text(std::string("config '") + name + "' is an autoregressive policy"));
  }
}

TEST_CASE("an unknown config name lists the known ones", "[policy][config]") {
  const std::string error = error_of<PolicyConfigError>([] { policy_config("pi05_driod"); });
  REQUIRE_THAT(error, contains_text("'pi05_driod'"));
  for (const std::string& name : policy_names()) REQUIRE_THAT(error, contains_text(name));
}

TEST_CASE("read_policy_config reads a user's file as it reads our own", "[policy][config]") {
  const PolicyConfig config = read_policy_config("../configs/policies/pi05_droid_jointpos_polaris.json");
  REQUIRE(config.name == "pi05_droid_jointpos_polaris");
  REQUIRE(config.action_horizon == 15);
  REQUIRE(config.resize == Resize::pillow);
  REQUIRE(config.clean_prompt);
  REQUIRE(refusal("max_token_len", "48").empty());
  REQUIRE(refusal("resize", "\"lerobot\"").empty());
  REQUIRE(refusal("normalization", "\"lerobot_quantile\"").empty());
  REQUIRE(refusal("clean_prompt", "false").empty());
  REQUIRE(refusal("default_prompt", "\"fold\"").empty());
  REQUIRE(refusal("metadata", R"({"reset_pose": [0, -1.5], "arm": {"left": null}})").empty());
}

TEST_CASE("read_policy_config names file and key of what it refuses", "[policy][config]") {
  REQUIRE_THAT(refusal("action_horizon", ""), contains_text("'action_horizon' is missing"));
  REQUIRE_THAT(refusal("action_horizn", "1"), contains_text("unknown key 'action_horizn'"));
  REQUIRE_THAT(refusal("action_horizon", "1.5"), contains_text("'action_horizon' is 1.5, expected a positive integer"));
  REQUIRE_THAT(refusal("action_horizon", "0"), contains_text("expected a positive integer"));
  REQUIRE_THAT(refusal("action_horizon", "true"), contains_text("expected a positive integer"));
  REQUIRE_THAT(refusal("action_dim", "7"), contains_text("'action_dim' is 7, too small"));
  REQUIRE_THAT(refusal("pi05", "1"), contains_text("'pi05' is 1, expected true or false"));
  REQUIRE_THAT(refusal("asset_id", "\"\""), contains_text("'asset_id' is \"\""));
  REQUIRE_THAT(refusal("normalization", "\"minmax\""), contains_text("\"quantile\" or \"z_score\""));
  REQUIRE_THAT(refusal("resize", "\"nearest\""), contains_text("\"pillow\" or \"lerobot\""));
  REQUIRE_THAT(refusal("padding_value", "-3"), contains_text("need 'resize' to be \"lerobot\""));
  REQUIRE_THAT(refusal("padding_place", "\"left_top\""), contains_text("need 'resize' to be \"lerobot\""));
  REQUIRE_THAT(refusal("padding_value", "\"-3\""), contains_text("'padding_value' is \"-3\", expected a number"));
  REQUIRE_THAT(refusal("padded_state_in_prompt", "true"), contains_text("needs 'discrete_state_input'"));
  REQUIRE_THAT(refusal("robot", "\"spot\""), contains_text("unknown robot 'spot'; known: aloha, droid, libero"));
  REQUIRE_THAT(refusal("paligemma_variant", "\"gemma_9b\""), contains_text("gemma_2b"));
  REQUIRE_THAT(refusal("delta_action_mask", "[true, 0]"), contains_text("a list of true and false"));
  REQUIRE_THAT(refusal("default_prompt", "null"), contains_text("'default_prompt' is null"));
  REQUIRE_THAT(refusal("metadata", "[]"), contains_text("'metadata' is [], expected an object"));
  REQUIRE_THAT(refusal("discrete_state_input", "true"), contains_text("only a Pi0.5 model"));
  REQUIRE_THAT(refusal("pi05", "1"), contains_text(".json: "));
  REQUIRE_THAT(error_of<PolicyConfigError>([] { read_policy_config("goldens/absent.json"); }),
               contains_text("goldens/absent.json: cannot be opened"));
}

TEST_CASE("a robot of one's own is part of the policy's file", "[policy][config]") {
  const auto robot = [](const std::string& key, const std::string& value) {
    auto json = nlohmann::json::parse(std::ifstream("../configs/robots/libero.json"));
    if (value.empty()) {
      json.erase(key);
    } else {
      json[key] = nlohmann::json::parse(value);
    }
    if (key == "action_size") {  // as many as there are names, else
      json.erase("action_names");
      json.erase("gripper_actions");
    }
    return json.dump();
  };
  REQUIRE(refusal("robot", robot("action_size", "7")).empty());
  REQUIRE(refusal("robot", robot("gripper_actions", "")).empty());
  REQUIRE(refusal("robot", robot("state", R"([{"field": "q", "size": 3}])")).empty());
  const auto refused = [&](const std::string& key, const std::string& value, const std::string& text) {
    const std::string error = refusal("robot", robot(key, value));
    INFO(error);
    REQUIRE_THAT(error, contains_text(".json.robot") && contains_text(text));
  };
  refused("action_size", "", "'action_size' is missing");
  refused("wheels", "4", "unknown key 'wheels'");
  refused("image_layout", "\"hwc\"", "expected \"any\" or \"channels_first\"");
  refused("state", "[]", "expected a list of at least one object");
  refused("state", R"([{"field": "q"}])", "'state' entry 1: 'size' is missing");
  refused("state", R"([{"field": "q", "size": 3, "unit": "m"}])", "unknown key 'unit'");
  refused("adapt_to_pi", "true", "14 joints, but the state has 8 numbers and the action 7");
  refused("action_names", R"(["x", "y"])", "'action_names' has 2 entries, expected one for each of the 7");
  refused("action_names", R"(["x", "x", "z", "a", "b", "c", "gripper"])", "'action_names' has a name twice");
  refused("gripper_actions", R"(["hand"])", "'gripper_actions' has 'hand', which is not one of 'action_names'");
  refused("unused_cameras", R"(["low"])", "needs a 'camera_map'");
  refused("cameras", R"([{"input": "base_0_rgb", "field": "a"}])", "'cameras' has 1 entries");
  refused("cameras", R"([{"input": "front"}])", "expected \"base_0_rgb\"");
  refused("cameras", R"([{"input": "base_0_rgb"}, {"input": "left_wrist_0_rgb"}, {"input": "right_wrist_0_rgb"}])",
          "base_0_rgb must be a field");
  REQUIRE_THAT(refusal("robot", robot("action_size", "33")), contains_text("'action_dim' is 32"));
}

TEST_CASE("metadata keeps order and types", "[policy][config]") {
  const auto file = std::filesystem::temp_directory_path() / ("pi0_meta_" + std::to_string(getpid()) + ".json");
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
    return error_of<PolicyConfigError>([&] { check_architecture(policy_config(name), tiny, source); });
  };
  REQUIRE(refused("pi05_droid").empty());
  REQUIRE_THAT(refused("pi05_droid_finetune"),
               contains_text(source + ": 'action_horizon' is 15, config pi05_droid_finetune says 16"));
  REQUIRE_THAT(refused("pi0_droid"), contains_text("'pi05' is true, config pi0_droid says false"));
}

}  // namespace pi0::policy
