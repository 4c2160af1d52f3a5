// The first message to every client.
#pragma once

#include "model/policy/policy_config.h"
#include "protocol/value.h"

namespace pi0::tools {

// The policy's own metadata, as openpi sends them, and what else a client may want to know under keys that they do not
// have: action_horizon, action_names (if the robot has them), request_fields, image_format, pi0_version. Nothing is
// added to metadata that are RoboArena's PolicyServerConfig: its clients refuse keys that this class does not have.
protocol::Dict served_metadata(const policy::PolicyConfig& policy);

}  // namespace pi0::tools
