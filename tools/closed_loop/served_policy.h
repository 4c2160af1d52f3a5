// The policy that pi0-server serves with the arguments that pi0 closed-loop passes on.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/policy/policy_config.h"

namespace pi0::tools {

struct ServedPolicy {
  std::optional<policy::PolicyConfig> config;  // none: the arguments name no policy, which the server refuses
  bool is_openpis = false;                     // named by --config or --env
  bool has_default_prompt = false;             // by --default-prompt
};

// Throws for what would end the server of every pair: an unknown policy (policy::PolicyConfigError), a place without a
// checkpoint (model::CheckpointError), a file that is none.
ServedPolicy served_policy(const std::vector<std::string>& server_arguments);

}  // namespace pi0::tools
