#include "model/policy/lerobot_config.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "model/model_config.h"

namespace pi0::policy {
namespace {

namespace fs = std::filesystem;
using model::Json;
using model::JsonFields;

constexpr std::size_t most_cameras = 3;

// How many numbers a feature has; LeRobot adds a missing one with as many as it pads to.
std::int64_t size_of(JsonFields& fields, const std::string& place, const std::string& key,
                     const std::vector<LeRobotFeature>& features, std::int64_t padded) {
  const auto found = std::ranges::find(features, key, &LeRobotFeature::key);
  if (found == features.end()) return padded;
  const Json& shape = found->shape;
  const bool is_size = shape.is_array() && shape.size() == 1 && shape[0].is_number_unsigned() && shape[0] > 0;
  if (!is_size || shape[0] > padded) {
    fields.refuse("'" + place + "." + key + "' has the shape " + model::shown(shape) + ", expected one size up to " +
                  std::to_string(padded));
  }
  return shape[0].get<std::int64_t>();
}

void read_cameras(JsonFields& fields, const std::vector<LeRobotFeature>& inputs, LeRobotConfig& config) {
  for (const LeRobotFeature& input : inputs) {
    const bool is_empty = input.key.starts_with("observation.images.empty_camera_");
    if (input.type == "VISUAL" && !is_empty) config.cameras.push_back(input.key);
  }
  if (config.cameras.empty()) fields.refuse("'input_features' has no camera (\"VISUAL\"), expected one to three");
  if (config.cameras.size() > most_cameras) {
    std::string names;
    for (const std::string& camera : config.cameras) names += (names.empty() ? "" : ", ") + camera;
    fields.refuse("'input_features' has " + std::to_string(config.cameras.size()) + " cameras (" + names +
                  "), expected at most three");
  }
}

void refuse_unsupported(JsonFields& fields, const fs::path& folder) {
  const std::string merge = "a PEFT adapter must be merged into the weights (merge_and_unload)";
  if (fs::exists(folder / "adapter_config.json")) fields.refuse("adapter_config.json is beside it: " + merge);
  require_value(fields, "use_peft", false, merge);
  require_value(fields, "use_visual_memory", false, "visual memory is not supported");
  require_value(fields, "use_proprioceptive_memory", false, "proprioceptive memory is not supported");
  require_value(fields, "n_obs_steps", 1, "several observation steps are not supported");
  require_value(fields, "image_resolution", {224, 224}, "the model takes no other size");
  require_value(fields, "resize_imgs_with_padding", {224, 224}, "the model takes no other size");
  require_value(fields, "min_period", 4e-3, "the time embedding is the base model's");
  require_value(fields, "max_period", 4.0, "the time embedding is the base model's");
  require_value(fields, "adapt_to_pi_aloha", false, "ALOHA's units are not converted for LeRobot's policies");
  require_value(fields, "use_delta_joint_actions_aloha", false, "LeRobot has no such actions either");
}

}  // namespace

void require_value(JsonFields& fields, const std::string& key, const Json& expected, const std::string& why) {
  if (!fields.has(key) || fields.value(key) == expected) return;
  fields.refuse("'" + key + "' is " + model::shown(fields.value(key)) + ", expected " + model::shown(expected) + ": " +
                why);
}

std::vector<LeRobotFeature> read_lerobot_features(JsonFields& fields, const std::string& key) {
  std::vector<LeRobotFeature> features;
  for (const auto& [name, value] : fields.any_object(key).items()) {
    JsonFields feature(value, std::string(key).append(".").append(name));
    features.push_back({name, feature.text("type"), feature.value("shape")});
  }
  return features;
}

LeRobotConfig read_lerobot_sizes(const fs::path& folder) {
  const fs::path file = folder / "config.json";
  LeRobotConfig config{.source = file.string(), .json = model::read_json(file)};
  JsonFields fields(config.json, config.source);
  const std::string type = fields.text("type");
  if (type != "pi0" && type != "pi05") {
    fields.refuse("'type' is \"" + type + "\", expected \"pi0\" or \"pi05\": no other LeRobot policy is supported");
  }
  config.pi05 = type == "pi05";
  config.action_dim = fields.count("max_action_dim");
  config.action_horizon = fields.count("chunk_size");
  config.max_token_len = fields.count("tokenizer_max_length");
  return config;
}

LeRobotConfig read_lerobot_config(const fs::path& folder) {
  LeRobotConfig config = read_lerobot_sizes(folder);
  JsonFields fields(config.json, config.source);
  refuse_unsupported(fields, folder);
  // Only Pi0 has a layer for the state, but every version pads both.
  require_value(fields, "max_state_dim", config.action_dim,
                "states and actions are padded to one size ('max_action_dim')");
  config.up_to_0_3 = fields.has("resize_imgs_with_padding");
  const char* steps_key = config.up_to_0_3 ? "num_steps" : "num_inference_steps";
  if (fields.has(steps_key)) config.num_steps = fields.count(steps_key);
  if (config.num_steps > 1000) fields.refuse("'" + std::string(steps_key) + "' is above 1000");
  for (auto [key, variant] : {std::pair{"paligemma_variant", &config.paligemma_variant},
                              std::pair{"action_expert_variant", &config.action_expert_variant}}) {
    if (!fields.has(key)) continue;
    *variant = fields.text(key);
    try {
      model::gemma_variant(*variant);
    } catch (const std::invalid_argument& error) {
      fields.refuse("'" + std::string(key) + "': " + error.what());
    }
  }
  const std::vector<LeRobotFeature> inputs = read_lerobot_features(fields, "input_features");
  const std::vector<LeRobotFeature> outputs = read_lerobot_features(fields, "output_features");
  config.state_size = size_of(fields, "input_features", lerobot_state_key, inputs, config.action_dim);
  config.action_size = size_of(fields, "output_features", lerobot_action_key, outputs, config.action_dim);
  read_cameras(fields, inputs, config);
  return config;
}

}  // namespace pi0::policy
