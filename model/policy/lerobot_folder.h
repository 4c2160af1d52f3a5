// Reads the folder that LeRobot's save_pretrained writes: a policy, its statistics and its tokenizer, so that it is
// served as LeRobot runs it. Knows all versions up to 0.6. Whatever would change the answers and is not supported is
// refused by its name in LeRobot's files; keys that only training needs are not looked at. Reference: LeRobot's
// policies/pi0 and policies/pi05, and the steps of processor/ that their processors have.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model/policy/norm_stats.h"
#include "model/policy/policy_config.h"

namespace pi0::policy {

// What the files do not tell. Up to 0.3 they do.
enum class LeRobotVersion {
  v0_4,  // pads pictures with -3, and Pi0.5's state before it is put into the prompt
  v0_5   // and later
};

struct LeRobotFolder {
  PolicyConfig policy;  // named "lerobot:" and the folder's name
  NormStats norm_stats = {};
  std::int64_t num_steps = 10;                                // denoise steps
  std::string tokenizer_name = "google/paligemma-3b-pt-224";  // what LeRobot loads
  std::filesystem::path tokenizer = {};                       // tokenizer.model of the folder; empty: there is none
  std::vector<std::string> warnings = {};                     // for the log
};

// Throws PolicyConfigError or NormStatsError.
LeRobotFolder read_lerobot_folder(const std::filesystem::path& folder, LeRobotVersion version = LeRobotVersion::v0_5);

// Throws PolicyConfigError, naming key and both values, when `policy` is not of the model in a LeRobot folder.
void check_lerobot_model(const PolicyConfig& policy, const std::filesystem::path& folder);

}  // namespace pi0::policy
