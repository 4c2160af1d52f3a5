// The files of configs/policies as they were when the library was built.
#pragma once

#include <map>
#include <string>

namespace pi0::policy {

const std::map<std::string, std::string>& builtin_policies();  // name to JSON text

}  // namespace pi0::policy
