// The files of configs/policies and configs/robots, compiled into the library.
#pragma once

#include <map>
#include <string>

namespace pi0::policy {

const std::map<std::string, std::string>& builtin_policies();  // name to JSON text
const std::map<std::string, std::string>& builtin_robots();

}  // namespace pi0::policy
