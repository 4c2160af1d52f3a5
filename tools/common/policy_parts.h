// What the options choose of a policy: everything but the weights.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/checkpoint_folder.h"
#include "model/model_config.h"
#include "model/policy/norm_stats.h"
#include "model/policy/policy_config.h"
#include "model/policy/prompt_tokenizer.h"
#include "tools/common/model_options.h"

namespace pi0::tools {

// A policy's definition beside the weights, as pi0 convert writes it for policies that are none of openpi's.
inline constexpr const char* policy_file_name = "policy.json";

// A folder that openpi's converter made of a LoRA training holds the base weights alone: the converter drops adapters
// without a word. Throws model::CheckpointError for such a folder; if it is allowed, returns a line for the log.
std::string check_lora(const model::CheckpointFolder& checkpoint, bool allowed);

// The sizes of architecture.json, checked against the policy if there is one; without the file, those
// of the policy's variants. Throws std::invalid_argument when there is neither.
model::ModelConfig chosen_sizes(const ModelOptions& options);

// The policy of --config, --config-file, a LeRobot checkpoint or a checkpoint with policy.json; none when none of them
// is there. Throws as load_parts() does.
std::optional<policy::PolicyConfig> chosen_policy(const ModelOptions& options);

// Everything that a policy needs besides weights. It is quick to load, so errors show before the weights are read.
struct PolicyParts {
  policy::PolicyConfig config;
  model::ModelConfig sizes;
  policy::NormStats norm_stats;
  policy::PromptTokenizer tokenizer;
  std::vector<std::string> warnings = {};  // for the log
};
PolicyParts load_parts(const ModelOptions& options);

}  // namespace pi0::tools
