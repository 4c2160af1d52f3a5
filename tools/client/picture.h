// PNG and JPEG files as request fields.
#pragma once

#include <filesystem>

#include "protocol/value.h"

namespace pi0::tools {

// uint8 [H, W, 3], RGB. Throws std::runtime_error that names the file.
protocol::NdArray read_picture(const std::filesystem::path& file);

}  // namespace pi0::tools
