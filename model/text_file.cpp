#include "model/text_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace pi0::model {

std::string read_file(const std::filesystem::path& file) {
  if (std::filesystem::is_directory(file)) {
    throw std::runtime_error(file.string() + ": is a folder, expected a file");
  }
  errno = 0;
  std::ifstream stream(file, std::ios::binary);
  if (!stream) {
    throw std::runtime_error(file.string() + ": cannot be opened: " + std::strerror(errno));
  }
  std::string bytes{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (stream.bad()) throw std::runtime_error(file.string() + ": cannot be read to its end");
  return bytes;
}

}  // namespace pi0::model
