#include "tools/serve/metadata.h"

#include <string>
#include <utility>
#include <vector>

#include "model/policy/robot.h"
#include "tools/common/version.h"

namespace pi0::tools {
namespace {

protocol::List list_of(const std::vector<std::string>& names) { return {{names.begin(), names.end()}}; }

}  // namespace

protocol::Dict served_metadata(const policy::PolicyConfig& policy) {
  protocol::Dict metadata = policy.metadata;
  if (metadata.find("needs_wrist_camera") != nullptr) return metadata;  // RoboArena's
  const auto add = [&](const std::string& key, protocol::Value value) {
    if (metadata.find(key) == nullptr) metadata.set(key, std::move(value));
  };
  add("action_horizon", policy.action_horizon);
  if (!policy.robot.action_names.empty()) add("action_names", list_of(policy.robot.action_names));
  add("request_fields", list_of(policy::request_fields(policy.robot)));
  add("image_format", list_of({"array", "png", "jpeg"}));
  add("pi0_version", version());
  return metadata;
}

}  // namespace pi0::tools
