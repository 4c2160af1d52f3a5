#pragma once

#include <string>

namespace pi0::tools {

std::string version();  // "pi0 0.2.0 (libtorch 2.13.0)"

}  // namespace pi0::tools
