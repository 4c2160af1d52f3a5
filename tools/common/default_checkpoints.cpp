#include "tools/common/default_checkpoints.h"

namespace pi0::tools {

const std::map<std::string, DefaultCheckpoint>& default_checkpoints() {
  static const std::map<std::string, DefaultCheckpoint> checkpoints = {
      {"aloha", {"pi05_aloha", "pi05_base"}},
      {"aloha_sim", {"pi0_aloha_sim", "pi0_aloha_sim"}},
      {"droid", {"pi05_droid", "pi05_droid"}},
      {"libero", {"pi05_libero", "pi05_libero"}},
  };
  return checkpoints;
}

}  // namespace pi0::tools
