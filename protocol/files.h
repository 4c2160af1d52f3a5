// Whole files, and requests and answers as msgpack.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "protocol/value.h"

namespace pi0::protocol {

// Writes a temporary file beside it and renames it, so that nobody ever sees half of it. Throws
// std::runtime_error that names the file.
void write_whole(const std::filesystem::path& file, std::string_view content);
void write_whole(const std::filesystem::path& file, std::span<const std::uint8_t> content);

// Throws std::runtime_error when write_whole would: for output that comes at the end of long work.
void check_writable(const std::filesystem::path& file);

// Both throw std::runtime_error that names the file. Sizes are not limited as the server's are, so
// that whatever it took can be read back.
Dict read_message(const std::filesystem::path& file);
void write_message(const std::filesystem::path& file, const Dict& message);

}  // namespace pi0::protocol
