#include "model/policy/lerobot_folder.h"

#include <algorithm>
#include <map>

#include "model/policy/policy.h"
#include "model/safetensors.h"
#include "policy/policy_fixtures.h"
#include "support/catch.h"
#include "support/temporary_folder.h"
#include "support/tensor_file.h"

namespace pi0::policy {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;  // cameras have an order
using Tensors = std::map<std::string, at::Tensor>;

const fs::path goldens = "goldens/lerobot";

fs::path golden_folder(const std::string& type) { return goldens / type / "checkpoint"; }

// A copy of a golden folder, without its weights, that a test changes.
class Changed {
 public:
  explicit Changed(const std::string& type) {
    for (const auto& entry : fs::directory_iterator(golden_folder(type))) {
      if (entry.path().filename() == "model.safetensors") continue;
      fs::copy(entry.path(), path() / entry.path().filename(), fs::copy_options::recursive);
    }
  }
  fs::path path() const { return folder_.path(); }

  template <class Change>
  Changed& file(const std::string& name, Change change) {
    Json json = Json::parse(test::read_all(path() / name));
    change(json);
    test::write_all(path() / name, json.dump());
    return *this;
  }
  Changed& config(const std::string& key, const Json& value) {
    return file("config.json", [&](Json& json) { json[key] = value; });
  }
  // A value in the configuration of a step, at a JSON pointer.
  Changed& step(const std::string& processor, const std::string& name, const std::string& pointer, const Json& value) {
    return file(processor, [&](Json& json) {
      for (Json& step : json["steps"]) {
        if (step["registry_name"] == name) step["config"][Json::json_pointer(pointer)] = value;
      }
    });
  }
  LeRobotFolder read(LeRobotVersion version = LeRobotVersion::v0_5) const {
    return read_lerobot_folder(path(), version);
  }
  std::string refusal(LeRobotVersion version = LeRobotVersion::v0_5) const {
    try {
      read(version);
    } catch (const PolicyConfigError& error) {
      return error.what();
    } catch (const NormStatsError& error) {
      return error.what();
    }
    return "accepted";
  }

 private:
  test::TemporaryFolder folder_;
};

const std::string pre = "policy_preprocessor.json", post = "policy_postprocessor.json";

// config.json as LeRobot 0.3 writes it, and statistics among the weights.
void make_0_3(Changed& changed, const Tensors& statistics) {
  for (const std::string& name : {pre, post}) fs::remove(changed.path() / name);
  changed.file("config.json", [](Json& json) {
    for (const char* key : {"image_resolution", "paligemma_variant", "action_expert_variant", "num_inference_steps",
                            "min_period", "max_period"}) {
      json.erase(key);
    }
    json["resize_imgs_with_padding"] = {224, 224};
    json["num_steps"] = 7;
    json["adapt_to_pi_aloha"] = false;
  });
  Tensors tensors = statistics;
  tensors["model.paligemma_with_expert.a"] = at::zeros({1});
  test::write_tensors(changed.path() / "model.safetensors", tensors);
}

Tensors statistics_0_3(double mean, double std) {
  return {{"normalize_inputs.buffer_observation_state.mean", at::full({8}, mean)},
          {"normalize_inputs.buffer_observation_state.std", at::full({8}, std)},
          {"normalize_targets.buffer_action.mean", at::full({7}, mean)},
          {"normalize_targets.buffer_action.std", at::full({7}, std)},
          {"unnormalize_outputs.buffer_action.mean", at::full({7}, mean)},
          {"unnormalize_outputs.buffer_action.std", at::full({7}, std)}};
}

model::ModelInputs inputs_of(const LeRobotFolder& read, const std::string& size) {
  const Policy policy(read.policy, read.norm_stats,
                      PromptTokenizer::from_file(golden_folder("pi0") / "tokenizer/tokenizer.model", 512),
                      [](const model::ModelInputs&, const at::Tensor& noise, std::int64_t) { return noise; }, {});
  return policy.prepare(golden_message("lerobot/request_" + size + ".msgpack"));
}

}  // namespace

TEST_CASE("a LeRobot folder says all of a policy", "[policy][lerobot]") {
  for (const std::string type : {"pi0", "pi05"}) {
    INFO(type);
    const LeRobotFolder read = read_lerobot_folder(golden_folder(type));
    const PolicyConfig& policy = read.policy;
    CHECK(policy.name == "lerobot:checkpoint");
    CHECK(policy.pi05 == (type == "pi05"));
    CHECK(policy.action_dim == 32);
    CHECK(policy.action_horizon == 15);
    CHECK(policy.max_token_len == (policy.pi05 ? 200 : 48));
    CHECK(policy.discrete_state_input == policy.pi05);
    CHECK(policy.clean_prompt == policy.pi05);
    CHECK(policy.normalization == (policy.pi05 ? Normalization::lerobot_quantile : Normalization::lerobot_z_score));
    CHECK(policy.resize == Resize::lerobot);
    CHECK(policy.padding.value == -1.0);
    CHECK(policy.padding.place == Padding::Place::around);
    CHECK_FALSE(policy.padded_state_in_prompt);
    CHECK(policy.delta_action_mask.empty());
    CHECK(policy.robot.cameras[0].field == "observation.images.base_0_rgb");
    CHECK(policy.robot.cameras[1].field == "observation.images.left_wrist_0_rgb");
    CHECK(policy.robot.cameras[2].field.empty());
    CHECK(policy.robot.state.front().field == "observation.state");
    CHECK(policy.robot.state_size() == 8);
    CHECK(policy.robot.action_size == 7);
    CHECK(read.num_steps == 10);
    CHECK(read.tokenizer == golden_folder(type) / "tokenizer/tokenizer.model");
    CHECK(read.warnings.empty());
    const model::SafetensorsFile file(golden_folder(type) /
                                      "policy_postprocessor_step_0_unnormalizer_processor.safetensors");
    const std::vector<double>& low = policy.pi05 ? read.norm_stats.actions.q01 : read.norm_stats.actions.mean;
    CHECK(at::equal(at::tensor(low, at::kDouble),
                    file.tensor(policy.pi05 ? "action.q01" : "action.mean").to(at::kDouble)));
    CHECK(read.norm_stats.state.q01.empty() != policy.pi05);
  }
}

TEST_CASE("the tokens are LeRobot's", "[policy][lerobot]") {
  for (const std::string type : {"pi0", "pi05"}) {
    for (const std::string size : {"224x224", "256x256", "480x640"}) {
      const model::ModelInputs inputs = inputs_of(read_lerobot_folder(golden_folder(type)), size);
      const model::SafetensorsFile expected(goldens / type / ("expected_" + size + ".safetensors"));
      CHECK(at::equal(inputs.tokens[0], expected.tensor("tokens")));
      CHECK_FALSE(inputs.image_masks[2].item<bool>());
      CHECK(at::equal(inputs.images[2], at::full({1, 3, 224, 224}, -1.0F)));
    }
  }
}

TEST_CASE("0.4 pads pictures with -3 and the state in the prompt", "[policy][lerobot]") {
  const LeRobotFolder read = read_lerobot_folder(golden_folder("pi05"), LeRobotVersion::v0_4);
  CHECK(read.policy.padding.value == -3.0);
  const model::ModelInputs inputs = inputs_of(read, "480x640"),
                           later = inputs_of(read_lerobot_folder(golden_folder("pi05")), "480x640");
  CHECK(inputs.images[0].min().item<float>() == -3.0F);
  CHECK(later.images[0].min().item<float>() == -1.0F);
  CHECK(later.token_mask.sum().item<std::int64_t>() == 47);
  CHECK(inputs.token_mask.sum().item<std::int64_t>() == 143);
  CHECK(at::equal(inputs.state, later.state));
  const LeRobotFolder pi0 = read_lerobot_folder(golden_folder("pi0"), LeRobotVersion::v0_4);
  CHECK(pi0.policy.padding.value == -3.0);
  CHECK_FALSE(pi0.policy.padded_state_in_prompt);
}

TEST_CASE("0.3 keeps its statistics among the weights", "[policy][lerobot]") {
  Changed changed("pi0");
  make_0_3(changed, statistics_0_3(0.25, 2.0));
  const LeRobotFolder read = changed.read();
  CHECK(read.policy.normalization == Normalization::lerobot_z_score);
  CHECK(read.policy.padding.place == Padding::Place::left_top);
  CHECK(read.policy.padding.value == -1.0);
  CHECK(read.policy.paligemma_variant == "gemma_2b");
  CHECK(read.norm_stats.state.mean == std::vector<double>(8, 0.25));
  CHECK(read.norm_stats.actions.std == std::vector<double>(7, 2.0));
  CHECK(read.num_steps == 7);
  CHECK(read.warnings.empty());
  CHECK_THAT(changed.refusal(LeRobotVersion::v0_4), contains_text("is of LeRobot 0.3 or earlier"));

  make_0_3(changed, statistics_0_3(1.0, 1.0));
  REQUIRE(changed.read().warnings.size() == 1);
  CHECK_THAT(changed.read().warnings.front(),
             contains_text("every mean and standard deviation among the weights is 1"));
  make_0_3(changed, statistics_0_3(INFINITY, INFINITY));
  CHECK_THAT(changed.refusal(),
             contains_text("'normalize_inputs.buffer_observation_state.mean' has values that are not finite"));
  make_0_3(changed, {});
  CHECK_THAT(changed.refusal(),
             contains_text("has no statistics, neither in policy_preprocessor.json nor among the weights"));
  make_0_3(changed, statistics_0_3(0.0, 1.0));
  changed.file("config.json", [](Json& json) { json["normalization_mapping"]["ACTION"] = "MIN_MAX"; });
  CHECK_THAT(changed.refusal(), contains_text("'ACTION' is \"MIN_MAX\", expected \"MEAN_STD\" or \"QUANTILES\""));
  changed.config("adapt_to_pi_aloha", true);
  CHECK_THAT(changed.refusal(), contains_text("'adapt_to_pi_aloha' is true, expected false"));
}

TEST_CASE("fields and relative actions follow the steps", "[policy][lerobot]") {
  Changed changed("pi0");
  changed.step(
      pre, "rename_observations_processor", "/rename_map",
      {{"observation.images.top", "observation.images.base_0_rgb"}, {"arm", "observation.state"}, {"other", "unused"}});
  changed.step(pre, "relative_actions_processor", "/enabled", true);
  changed.step(post, "absolute_actions_processor", "/enabled", true);
  changed.step(pre, "relative_actions_processor", "/action_names", {"j0", "j1", "Left_Gripper", "j3", "gripper", "j5"});
  const PolicyConfig policy = changed.read().policy;
  CHECK(policy.robot.cameras[0].field == "observation.images.top");
  CHECK(policy.robot.cameras[1].field == "observation.images.left_wrist_0_rgb");
  CHECK(policy.robot.state.front().field == "arm");
  CHECK(policy.delta_action_mask == std::vector<bool>{true, true, false, true, false, true, true});
  // Without names, LeRobot excludes nothing.
  changed.step(pre, "relative_actions_processor", "/action_names", nullptr);
  CHECK(changed.read().policy.delta_action_mask == std::vector<bool>(7, true));
  changed.step(post, "absolute_actions_processor", "/enabled", false);
  CHECK_THAT(changed.refusal(),
             contains_text("'relative_actions_processor' is enabled, but 'absolute_actions_processor'"));
  changed.step(pre, "rename_observations_processor", "/rename_map",
               {{"a", "observation.state"}, {"b", "observation.state"}});
  CHECK_THAT(changed.refusal(), contains_text("'rename_map' has 2 fields that become 'observation.state'"));
}

TEST_CASE("relative actions are added to the state that was sent", "[policy][lerobot]") {
  Changed changed("pi0");
  changed.step(pre, "relative_actions_processor", "/enabled", true);
  changed.step(post, "absolute_actions_processor", "/enabled", true);
  const LeRobotFolder read = changed.read();
  LeRobotFolder plain = read;
  plain.policy.delta_action_mask.clear();
  // A constant dimension, whose standard deviation is zero.
  const auto actions_of = [](LeRobotFolder folder) {
    folder.norm_stats.state.std[2] = 0.0;
    Policy policy(folder.policy, folder.norm_stats,
                  PromptTokenizer::from_file(golden_folder("pi0") / "tokenizer/tokenizer.model", 512),
                  [](const model::ModelInputs&, const at::Tensor& noise, std::int64_t) { return noise; }, {});
    const protocol::Dict answer = policy.infer(golden_message("lerobot/request_224x224.msgpack"));
    return doubles_of(std::get<protocol::NdArray>(*answer.find("actions")));
  };
  const std::vector<double> relative = actions_of(plain), absolute = actions_of(read);
  const protocol::Dict request = golden_message("lerobot/request_224x224.msgpack");
  const auto& state = std::get<protocol::NdArray>(*request.find("observation.state"));
  for (std::size_t i = 0; i < relative.size(); ++i) {
    float sent = 0;
    std::memcpy(&sent, state.data.data() + i % 7 * sizeof(float), sizeof(float));
    CHECK(absolute[i] - relative[i] == Approx(sent).margin(1e-6));
  }
}

TEST_CASE("what would change the answers is refused by name", "[policy][lerobot]") {
  const auto config = [](const std::string& key, const Json& value) {
    return Changed("pi05").config(key, value).refusal();
  };
  REQUIRE(config("optimizer_lr", 1.0) == "accepted");
  REQUIRE(config("of_another_version", 1) == "accepted");
  REQUIRE(config("rtc_training_max_delay", 4) == "accepted");  // without a previous chunk it has no effect
  CHECK_THAT(config("type", "pi0_fast"), contains_text("'type' is \"pi0_fast\", expected \"pi0\" or \"pi05\""));
  CHECK_THAT(config("use_visual_memory", true), contains_text("'use_visual_memory' is true, expected false"));
  CHECK_THAT(config("use_proprioceptive_memory", true),
             contains_text("'use_proprioceptive_memory' is true, expected false"));
  CHECK_THAT(config("use_peft", true), contains_text("'use_peft' is true") && contains_text("merge_and_unload"));
  CHECK_THAT(config("n_obs_steps", 2), contains_text("'n_obs_steps' is 2, expected 1"));
  CHECK_THAT(config("image_resolution", {448, 448}),
             contains_text("'image_resolution' is [448,448], expected [224,224]"));
  CHECK_THAT(config("min_period", 0.01), contains_text("'min_period' is 0.01, expected 0.004"));
  CHECK_THAT(config("max_period", 8.0), contains_text("'max_period' is 8.0, expected 4.0"));
  CHECK_THAT(config("max_state_dim", 24), contains_text("'max_state_dim' is 24, expected 32"));
  CHECK_THAT(config("num_inference_steps", 0), contains_text("'num_inference_steps' is 0"));
  CHECK_THAT(config("paligemma_variant", "gemma_9b"), contains_text("'paligemma_variant'"));
  CHECK_THAT(config("chunk_size", nullptr), contains_text("'chunk_size' is null"));
  CHECK_THAT(config("tokenizer_max_length", 100), contains_text("'max_length' is 200, expected 100"));

  Changed adapter("pi05");
  test::write_all(adapter.path() / "adapter_config.json", "{}");
  CHECK_THAT(adapter.refusal(), contains_text("PEFT adapter"));

  const auto feature = [](const std::string& features, const std::string& key, const Json& value) {
    return Changed("pi05").file("config.json", [&](Json& json) { json[features][key] = value; }).refusal();
  };
  const auto camera = [](const std::string& name) { return "observation.images." + name; };
  const Json visual = {{"type", "VISUAL"}, {"shape", {3, 224, 224}}};
  REQUIRE(feature("input_features", camera("right_wrist_0_rgb"), visual) == "accepted");
  Changed four("pi05");
  four.file("config.json", [&](Json& json) {
    for (const char* name : {"third", "fourth"}) json["input_features"][camera(name)] = visual;
  });
  CHECK_THAT(four.refusal(),
             contains_text("4 cameras (") && contains_text(camera("fourth")) && contains_text("at most three"));
  CHECK_THAT(feature("input_features", "observation.state", {{"type", "STATE"}, {"shape", {40}}}),
             contains_text("'input_features.observation.state' has the shape [40]"));
  CHECK_THAT(feature("output_features", "action", {{"type", "ACTION"}, {"shape", {7, 2}}}),
             contains_text("'output_features.action' has the shape [7,2]"));
  CHECK_THAT(feature("output_features", "action", {{"type", "ACTION"}, {"shape", {6}}}),
             contains_text("'action.q01' has shape [7], expected [6]"));
}

TEST_CASE("processors that would do something else are refused by name", "[policy][lerobot]") {
  const auto step = [](const std::string& processor, const std::string& name, const std::string& pointer,
                       const Json& value) { return Changed("pi05").step(processor, name, pointer, value).refusal(); };
  const std::string normalizer = "normalizer_processor", unnormalizer = "unnormalizer_processor";
  for (const char* mode : {"MIN_MAX", "QUANTILE10", "IDENTITY"}) {
    CHECK_THAT(step(pre, normalizer, "/norm_map/STATE", mode),
               contains_text(pre) &&
                   contains_text(std::string("'STATE' is \"") + mode + "\", expected \"MEAN_STD\" or \"QUANTILES\""));
    CHECK_THAT(step(post, unnormalizer, "/norm_map/ACTION", mode),
               contains_text(post) && contains_text(std::string("'ACTION' is \"") + mode));
  }
  CHECK_THAT(step(pre, normalizer, "/norm_map/STATE", "MEAN_STD"), contains_text("normalised differently"));
  CHECK_THAT(step(pre, normalizer, "/norm_map/VISUAL", "MEAN_STD"),
             contains_text("'VISUAL' is \"MEAN_STD\", expected \"IDENTITY\""));
  CHECK_THAT(step(pre, normalizer, "/eps", 1e-6), contains_text("'eps' is 1e-06, expected 1e-08"));
  CHECK_THAT(step(pre, normalizer, "/features", Json::object()),
             contains_text("'observation.state' is not normalised"));
  CHECK_THAT(step(pre, normalizer, "/normalize_observation_keys", {"observation.effort"}),
             contains_text("'observation.state' is not normalised"));
  CHECK_THAT(step(pre, "tokenizer_processor", "/padding_side", "left"), contains_text("'padding_side' is \"left\""));
  CHECK_THAT(step(pre, "tokenizer_processor", "/truncation", false), contains_text("'truncation' is false"));
  CHECK_THAT(step(pre, "tokenizer_processor", "/task_key", "subtask"), contains_text("'task_key' is \"subtask\""));
  CHECK_THAT(step(pre, "device_processor", "/float_dtype", "bfloat16"), contains_text("'float_dtype' is \"bfloat16\""));
  CHECK_THAT(step(pre, "pi05_prepare_state_tokenizer_processor_step", "/include_state_in_prompt", false),
             contains_text("'include_state_in_prompt' is false"));

  const auto steps = [](const std::string& processor, auto change) {
    return Changed("pi05").file(processor, [&](Json& json) { change(json["steps"]); }).refusal();
  };
  CHECK_THAT(
      steps(pre,
            [](Json& list) { list.push_back({{"registry_name", "delay_processor"}, {"config", Json::object()}}); }),
      contains_text("the step 'delay_processor' is unknown or in another order"));
  CHECK_THAT(steps(pre, [](Json& list) { std::swap(list[2], list[3]); }),
             contains_text("the step 'relative_actions_processor' is unknown or in another order"));
  CHECK_THAT(steps(pre, [](Json& list) { list.erase(3); }),
             contains_text("the step 'normalizer_processor' is missing"));
  CHECK_THAT(steps(post, [](Json& list) { list[0] = {{"class", "my.Step"}}; }),
             contains_text("the step 'my.Step' is unknown"));
  CHECK_THAT(steps(pre, [](Json& list) { list[3]["state_file"] = "../elsewhere.safetensors"; }),
             contains_text("'state_file' is \"../elsewhere.safetensors\""));

  CHECK_THAT(steps(pre, [](Json& list) { list[3].erase("state_file"); }),
             contains_text("entry 4: 'state_file' is missing: without statistics"));

  Changed incomplete("pi05");
  fs::remove(incomplete.path() / post);
  CHECK_THAT(incomplete.refusal(), contains_text(post));
  Changed without_statistics("pi05");
  test::write_tensors(without_statistics.path() / "policy_preprocessor_step_3_normalizer_processor.safetensors",
                      Tensors{{"action.q01", at::zeros({7})}});
  CHECK_THAT(without_statistics.refusal(), contains_text("'observation.state.q01' is missing"));
}

TEST_CASE("a policy of another model than the folder's is refused", "[policy][lerobot]") {
  PolicyConfig policy = read_lerobot_folder(golden_folder("pi05")).policy;
  policy.name = "mine";
  check_lerobot_model(policy, golden_folder("pi05"));
  CHECK_THAT(error_of<PolicyConfigError>([&] { check_lerobot_model(policy, golden_folder("pi0")); }),
             contains_text("'type' is \"pi0\", config mine says pi05"));
  policy.action_horizon = 10;
  CHECK_THAT(error_of<PolicyConfigError>([&] { check_lerobot_model(policy, golden_folder("pi05")); }),
             contains_text("'chunk_size' is 15, config mine says 10"));
}

}  // namespace pi0::policy
