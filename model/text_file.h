// Reads a whole file into memory.
#pragma once

#include <filesystem>
#include <string>

namespace pi0::model {

// Throws std::runtime_error that names the file and the reason.
std::string read_file(const std::filesystem::path& file);

}  // namespace pi0::model
