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

protocol::Dict read_message(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw std::runtime_error(file.string() + ": cannot be opened: " + std::strerror(errno));
  const std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(stream), {}};
  try {
    return protocol::decode(bytes);
  } catch (const std::exception& error) {
    throw std::runtime_error(file.string() + ": " + error.what());
  }
}

void write_message(const std::filesystem::path& file, const protocol::Dict& message) {
  const std::vector<std::uint8_t> bytes = protocol::encode(message);
  std::filesystem::path temporary = file;
  temporary += ".part";
  std::ofstream stream(temporary, std::ios::binary | std::ios::trunc);
  stream.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  stream.close();
  if (!stream) {
    const std::string reason = std::strerror(errno);
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw std::runtime_error(file.string() + ": cannot be written: " + reason);
  }
  std::filesystem::rename(temporary, file);
}

}  // namespace pi0::tools
