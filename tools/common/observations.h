// Requests without a robot: recordings, or synthetic pictures and states.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model/policy/robot_config.h"
#include "protocol/value.h"

namespace pi0::tools {

struct Observation {
  std::string name;  // the recording's number, or "synthetic N"
  protocol::Dict request;
};

// Every NNNNNN.request.msgpack of a folder that --record wrote, in order. Throws std::runtime_error when
// there is none, or one cannot be read.
std::vector<Observation> read_observations(const std::filesystem::path& folder);

// Requests with every field that the robot's client sends: smooth coloured pictures [224, 224] with
// noise like a camera's, states in [0, 1). They depend on the seed only.
std::vector<Observation> synthetic_observations(const policy::RobotConfig& robot, std::int64_t count,
                                                std::uint64_t seed);

}  // namespace pi0::tools
