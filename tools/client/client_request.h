// The client's request: a recorded one, a DROID robot's, or one of named fields.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "protocol/value.h"

namespace pi0::tools {

struct RequestOptions {
  std::filesystem::path recording;
  std::vector<std::string> images;  // "FIELD=FILE"; without a field a DROID robot's exterior camera
  std::filesystem::path wrist_image;
  std::vector<double> joints;       // radians; by default an arm above a table
  std::optional<double> gripper;    // by default open, 0
  std::vector<std::string> states;  // "FIELD=NUMBER,NUMBER,..."
  std::string prompt;
};

// Named fields replace those of the recording. Throws CLI::ValidationError for fields and numbers that cannot be read,
// and std::runtime_error for files.
protocol::Dict read_request(const RequestOptions& options);

// Throws std::runtime_error for a named field that is none of the server's `request_fields`, if its metadata have them:
// servers ignore what they do not know, so that a slip in a name would pass for no field.
void check_named_fields(const RequestOptions& options, const protocol::Dict& metadata);

}  // namespace pi0::tools
