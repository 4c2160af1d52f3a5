// The settings of pi0 closed-loop: one by one, the ways in which it has the policy served.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/closed_loop/closed_loop_options.h"

namespace pi0::tools {

struct ServedSetting {
  std::string folder;                  // of its results
  nlohmann::ordered_json names;        // its formats and rules, first in its entry
  std::vector<std::string> arguments;  // of pi0-server
};

// The unquantized policy if it is asked for, the pairs of formats, and the rules files. Throws std::invalid_argument
// for two settings of one name.
std::vector<ServedSetting> served_settings(const ClosedLoopOptions& options);

}  // namespace pi0::tools
