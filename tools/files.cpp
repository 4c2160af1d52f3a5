#include "tools/files.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "protocol/msgpack_numpy.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

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

void check_writable(const fs::path& file) {
  if (fs::is_directory(file)) throw std::runtime_error(file.string() + ": is a folder");
  write_temporary(file, "");
  fs::remove(temporary_for(file));
}

protocol::Dict read_message(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw std::runtime_error(file.string() + ": cannot be opened: " + std::strerror(errno));
  const std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(stream), {}};
  try {
    return protocol::decode(bytes);
  } catch (const std::exception& error) {
    throw std::runtime_error(file.string() + ": " + error.what());
  }
}

void write_message(const fs::path& file, const protocol::Dict& message) {
  const std::vector<std::uint8_t> bytes = protocol::encode(message);
  write_whole(file, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

}  // namespace pi0::tools
