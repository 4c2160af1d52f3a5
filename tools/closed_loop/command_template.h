// The simulator's shell command with its placeholders.
#pragma once

#include <map>
#include <string>

namespace pi0::tools {

// Replaces {name} by its value for every name of `values`, quoted for the shell where that is needed. {{ and }} are
// literal braces, and ${name} is the shell's. Throws std::invalid_argument for any other {name}.
std::string fill_command(const std::string& command, const std::map<std::string, std::string>& values);

}  // namespace pi0::tools
