#include "protocol/files.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "protocol/msgpack_numpy.h"

namespace pi0::protocol {
namespace {

namespace fs = std::filesystem;

// Only nesting could do harm: the rest is no larger than the file.
constexpr auto any = std::numeric_limits<std::size_t>::max();
constexpr DecodeLimits own_files{.max_depth = 1024,
                                 .max_values = any,
                                 .max_map_entries = any,
                                 .max_string_bytes = any,
                                 .max_array_bytes = any};

fs::path temporary_for(const fs::path& file) {
  fs::path temporary = file;
  temporary += ".part";
  return temporary;
}

void write_temporary(const fs::path& file, std::string_view content) {
  const fs::path temporary = temporary_for(file);
  std::ofstream stream(temporary, std::ios::binary | std::ios::trunc);
  stream.write(content.data(), static_cast<std::streamsize>(content.size()));
  stream.close();
  if (stream) return;
  const std::string reason = std::strerror(errno);
  std::error_code ignored;
  fs::remove(temporary, ignored);
  throw std::runtime_error(file.string() + ": cannot be written: " + reason);
}

}  // namespace

void write_whole(const fs::path& file, std::string_view content) {
  write_temporary(file, content);
  fs::rename(temporary_for(file), file);
}

void write_whole(const fs::path& file, std::span<const std::uint8_t> content) {
  write_whole(file,
              std::string_view(reinterpret_cast<const char*>(content.data()), content.size()));
}

void check_writable(const fs::path& file) {
  if (fs::is_directory(file)) throw std::runtime_error(file.string() + ": is a folder");
  write_temporary(file, "");
  fs::remove(temporary_for(file));
}

Dict read_message(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream)
    throw std::runtime_error(file.string() + ": cannot be opened: " + std::strerror(errno));
  const std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(stream), {}};
  try {
    return decode(bytes, own_files);
  } catch (const std::exception& error) {
    throw std::runtime_error(file.string() + ": " + error.what());
  }
}

void write_message(const fs::path& file, const Dict& message) {
  write_whole(file, encode(message));
}

}  // namespace pi0::protocol
