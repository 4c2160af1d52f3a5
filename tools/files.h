// Whole files: requests and answers as msgpack.
#pragma once

#include <filesystem>

#include "protocol/value.h"

namespace pi0::tools {

// Both throw std::runtime_error that names the file. Writing goes to a temporary file that is renamed.
protocol::Dict read_message(const std::filesystem::path& file);
void write_message(const std::filesystem::path& file, const protocol::Dict& message);

}  // namespace pi0::tools
