// The policies that openpi's serve_policy.py serves when no other is named.
#pragma once

#include <map>
#include <string>

namespace pi0::tools {

struct DefaultCheckpoint {
  std::string config;
  std::string folder;  // below openpi-assets/checkpoints
};

// By environment, as --env names it. Reference: openpi scripts/serve_policy.py DEFAULT_CHECKPOINT
const std::map<std::string, DefaultCheckpoint>& default_checkpoints();

inline constexpr const char* default_environment = "aloha_sim";

}  // namespace pi0::tools
