// The files that LeRobot keeps beside a policy's weights.
// Reference: LeRobot 0.6's save_pretrained of a Pi0 or Pi0.5 policy and of its pre- and postprocessor.
#pragma once

#include <filesystem>

#include "model/policy/norm_stats.h"
#include "model/policy/policy_config.h"

namespace pi0::tools {

// config.json, both processors with their statistics, and the tokenizer of random checkpoints, into `folder`. A camera
// is observation.images.<the model's input>, and the state, however many fields the robot's clients send, is
// observation.state. `stats` have the robot's sizes and percentiles.
void write_lerobot_files(const std::filesystem::path& folder, const policy::PolicyConfig& policy,
                         const policy::NormStats& stats);

}  // namespace pi0::tools
