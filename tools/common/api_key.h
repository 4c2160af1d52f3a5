// The key that clients send to a server with --api-key-file.
#pragma once

#include <filesystem>
#include <string>

namespace pi0::tools {

// The file's one line. Throws std::runtime_error that names the file for anything else than an API key.
std::string read_api_key(const std::filesystem::path& file);

}  // namespace pi0::tools
