#include "tools/common/version.h"

#include <torch/version.h>

namespace pi0::tools {

std::string version() { return "pi0 " PI0_VERSION " (libtorch " TORCH_VERSION ")"; }

}  // namespace pi0::tools
