// The definition of a policy as data: configs/policies/<name>.json, or a user's own file of that schema
// (configs/README.md). Knows nothing of checkpoints and weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/json_fields.h"
#include "model/model_config.h"
#include "model/policy/lerobot_image.h"
#include "model/policy/normalizer.h"
#include "model/policy/robot_config.h"
#include "protocol/value.h"

namespace pi0::policy {

// Names the file or policy, the key, what was found and what was expected.
class PolicyConfigError : public std::runtime_error {
  using runtime_error::runtime_error;
};

enum class Resize {
  pillow,  // as openpi's client does, to 8 bits
  lerobot  // in floats, without antialiasing
};

struct PolicyConfig {
  std::string name;  // openpi's; of a user's file, its name without folder and .json
  bool pi05 = true;
  std::string paligemma_variant;
  std::string action_expert_variant;
  std::int64_t action_dim = 0;        // N: states and actions are padded to it
  std::int64_t action_horizon = 0;    // A
  std::int64_t max_token_len = 0;     // longer prompts are truncated
  bool discrete_state_input = false;  // the prompt holds the state in 256 bins
  std::string asset_id;               // folder of the statistics in assets/
  Normalization normalization = Normalization::quantile;
  Resize resize = Resize::pillow;
  Padding padding;                      // with Resize::lerobot
  bool clean_prompt = true;             // Pi0: white space and underscores become as openpi has them
  bool padded_state_in_prompt = false;  // the prompt holds action_dim numbers
  RobotConfig robot;
  std::vector<bool> delta_action_mask;  // which actions are relative to the state; those past its end are not
  std::optional<std::string> default_prompt;
  protocol::Dict metadata;  // sent to a client when it connects
};

// A built-in policy. Throws PolicyConfigError that lists the known names.
PolicyConfig policy_config(const std::string& name);
std::vector<std::string> policy_names();

// A user's own policy. Throws PolicyConfigError.
PolicyConfig read_policy_config(const std::filesystem::path& file);

// A file's text that read_policy_config() reads as `policy`, but for the name. `policy` must have no metadata.
std::string policy_json(const PolicyConfig& policy);

// The sizes of openpi's full model for this policy.
model::ModelConfig model_config(const PolicyConfig& policy);

// Throws PolicyConfigError, naming key and both values, when an architecture.json (`source`)
// describes a model that this policy cannot be served with.
void check_architecture(const PolicyConfig& policy, const model::ModelConfig& architecture, const std::string& source);

// The same for what openpi's converter writes beside the weights: action_dim, action_horizon and the variants, where
// they are in the file. A variant's LoRA makes no difference.
void check_stored_config(const PolicyConfig& policy, const model::Json& stored, const std::string& source);

}  // namespace pi0::policy
