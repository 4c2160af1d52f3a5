#include "tools/client/picture.h"

#include <stb/stb_image.h>

#include <memory>
#include <stdexcept>

namespace pi0::tools {

protocol::NdArray read_picture(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) throw std::runtime_error(file.string() + ": does not exist, expected a picture");
  int width = 0, height = 0, channels = 0;
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(stbi_load(file.c_str(), &width, &height, &channels, 3),
                                                         stbi_image_free);
  if (!pixels) {
    throw std::runtime_error(file.string() + ": cannot be read as a picture: " + stbi_failure_reason());
  }
  const std::size_t count = std::size_t{3} * static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
  return {{'u', 1}, {height, width, 3}, {pixels.get(), pixels.get() + count}};
}

}  // namespace pi0::tools
