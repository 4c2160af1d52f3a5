#include "tools/model/lerobot_writing.h"

#include <ATen/ATen.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "protocol/files.h"
#include "tools/common/tensor_inputs.h"
#include "tools/common/tiny_tokenizer.h"

namespace pi0::tools {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

void write_json(const fs::path& file, const Json& content) { protocol::write_whole(file, content.dump(2) + "\n"); }

// LeRobot keeps statistics in float32.
void write_stats(const fs::path& file, const std::string& key, const policy::FieldStats& stats) {
  std::map<std::string, at::Tensor> tensors;
  const auto add = [&](const char* name, const std::vector<double>& values) {
    tensors[key + "." + name] = at::tensor(at::ArrayRef<double>(values), at::kDouble).to(at::kFloat);
  };
  add("mean", stats.mean);
  add("std", stats.std);
  add("q01", stats.q01);
  add("q99", stats.q99);
  write_tensors(file, tensors);
}

Json feature(const char* type, std::vector<std::int64_t> shape) {
  return {{"type", type}, {"shape", std::move(shape)}};
}

Json step(const char* name, Json config = Json::object()) {
  return {{"registry_name", name}, {"config", std::move(config)}};
}

}  // namespace

void write_lerobot_files(const fs::path& folder, const policy::PolicyConfig& policy, const policy::NormStats& stats) {
  const char* form = policy.normalization == policy::Normalization::quantile ? "QUANTILES" : "MEAN_STD";
  const Json norm_map = {{"VISUAL", "IDENTITY"}, {"STATE", form}, {"ACTION", form}};
  Json input_features;
  for (const policy::RobotConfig::Camera& camera : policy.robot.cameras) {
    if (!camera.field.empty()) input_features["observation.images." + camera.input] = feature("VISUAL", {3, 224, 224});
  }
  input_features["observation.state"] = feature("STATE", {policy.robot.state_size()});
  const Json output_features = {{"action", feature("ACTION", {policy.robot.action_size})}};
  write_json(folder / "config.json", {{"type", policy.pi05 ? "pi05" : "pi0"},
                                      {"n_obs_steps", 1},
                                      {"input_features", input_features},
                                      {"output_features", output_features},
                                      {"use_peft", false},
                                      {"paligemma_variant", model::without_lora(policy.paligemma_variant)},
                                      {"action_expert_variant", model::without_lora(policy.action_expert_variant)},
                                      {"chunk_size", policy.action_horizon},
                                      {"n_action_steps", policy.action_horizon},
                                      {"max_state_dim", policy.action_dim},
                                      {"max_action_dim", policy.action_dim},
                                      {"num_inference_steps", 10},
                                      {"min_period", 0.004},
                                      {"max_period", 4.0},
                                      {"use_relative_actions", false},
                                      {"image_resolution", {224, 224}},
                                      {"empty_cameras", 0},
                                      {"tokenizer_max_length", policy.max_token_len},
                                      {"normalization_mapping", norm_map}});

  const char* normalizer_file = "policy_preprocessor_step_2_normalizer_processor.safetensors";
  Json normalizer = step("normalizer_processor", {{"eps", 1e-8}, {"features", input_features}, {"norm_map", norm_map}});
  normalizer["state_file"] = normalizer_file;
  const Json tokenizer = step("tokenizer_processor", {{"max_length", policy.max_token_len},
                                                      {"task_key", "task"},
                                                      {"padding_side", "right"},
                                                      {"padding", "max_length"},
                                                      {"truncation", true},
                                                      {"tokenizer_name", "tokenizer"}});
  // Pi0.5 puts the normalized state into the prompt; Pi0 normalizes last.
  std::vector<Json> steps = {step("rename_observations_processor", {{"rename_map", Json::object()}}),
                             step("to_batch_processor")};
  if (policy.pi05) {
    steps.insert(steps.end(), {normalizer, step("pi05_prepare_state_tokenizer_processor_step"), tokenizer});
  } else {
    steps.insert(steps.end(), {step("pi0_new_line_processor"), tokenizer, normalizer});
  }
  write_json(folder / "policy_preprocessor.json", {{"name", "policy_preprocessor"}, {"steps", steps}});

  const char* unnormalizer_file = "policy_postprocessor_step_0_unnormalizer_processor.safetensors";
  Json unnormalizer =
      step("unnormalizer_processor", {{"eps", 1e-8}, {"features", output_features}, {"norm_map", norm_map}});
  unnormalizer["state_file"] = unnormalizer_file;
  write_json(folder / "policy_postprocessor.json",
             {{"name", "policy_postprocessor"}, {"steps", Json::array({unnormalizer})}});

  write_stats(folder / normalizer_file, "observation.state", stats.state);
  write_stats(folder / unnormalizer_file, "action", stats.actions);
  fs::create_directories(folder / "tokenizer");
  protocol::write_whole(folder / "tokenizer/tokenizer.model", tiny_tokenizer());
}

}  // namespace pi0::tools
