// Whole files, and requests and answers as msgpack.
#pragma once

#include <filesystem>
#include <string_view>

#include "protocol/value.h"

namespace pi0::tools {

// Writes a temporary file beside it and renames it, so that nobody ever sees half of it. Throws
// std::runtime_error that names the file.
void write_whole(const std::filesystem::path& file, std::string_view content);

// Throws std::runtime_error when write_whole would: for output that comes at the end of long work.
void check_writable(const std::filesystem::path& file);

// Both throw std::runtime_error that names the file.
protocol::Dict read_message(const std::filesystem::path& file);
void write_message(const std::filesystem::path& file, const protocol::Dict& message);

}  // namespace pi0::tools
