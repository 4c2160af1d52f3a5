// What a LeRobot policy's config.json says, read and checked; part of lerobot_folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model/json_fields.h"

namespace pi0::policy {

inline constexpr const char* lerobot_state_key = "observation.state";
inline constexpr const char* lerobot_action_key = "action";

// The sizes, and what decides how the model runs.
struct LeRobotConfig {
  std::string source;
  model::Json json;
  bool pi05 = false;
  bool up_to_0_3 = false;
  std::int64_t action_dim = 0, action_horizon = 0, max_token_len = 0, num_steps = 10;
  std::int64_t state_size = 0, action_size = 0;
  std::string paligemma_variant = "gemma_2b", action_expert_variant = "gemma_300m";
  std::vector<std::string> cameras = {};  // without empty ones, which are never sent
};

// Throws model::JsonFileError for what is not supported, by its name.
LeRobotConfig read_lerobot_config(const std::filesystem::path& folder);

// Only the sizes that a policy can be compared with: pi05, action_dim, action_horizon and max_token_len.
LeRobotConfig read_lerobot_sizes(const std::filesystem::path& folder);

// Refuses a key unless it is absent or has the one value that is supported.
void require_value(model::JsonFields& fields, const std::string& key, const model::Json& expected,
                   const std::string& why);

// One of input_features or output_features.
struct LeRobotFeature {
  std::string key;
  std::string type;
  model::Json shape;
};

std::vector<LeRobotFeature> read_lerobot_features(model::JsonFields& fields, const std::string& key);

}  // namespace pi0::policy
