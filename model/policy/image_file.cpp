#include "model/policy/image_file.h"

#include <stdexcept>
#include <string>

namespace pi0::policy {
namespace {

// Numbers of a TIFF header and its first directory. What lies beyond the bytes reads as zero.
class TiffReader {
 public:
  explicit TiffReader(std::span<const std::uint8_t> bytes) : bytes_(bytes), is_big_endian_(at(0) == 'M') {}

  std::size_t number(std::size_t offset, std::size_t size) const {
    std::size_t value = 0;
    for (std::size_t i = 0; i < size; ++i) value = value << 8 | at(offset + (is_big_endian_ ? i : size - 1 - i));
    return value;
  }

 private:
  std::uint8_t at(std::size_t offset) const { return offset < bytes_.size() ? bytes_[offset] : 0; }

  std::span<const std::uint8_t> bytes_;
  bool is_big_endian_;
};

}  // namespace

Image blank_image(std::uint64_t height, std::uint64_t width, std::size_t max_bytes) {
  if (width > 0 && height > max_bytes / 3 / width) {
    throw std::invalid_argument("found a picture of " + std::to_string(height) + " x " + std::to_string(width) +
                                " pixels, expected at most " + std::to_string(max_bytes) +
                                " bytes of height x width x 3 (the server's --max-image-bytes)");
  }
  return {static_cast<std::int64_t>(height), static_cast<std::int64_t>(width),
          std::vector<std::uint8_t>(height * width * 3)};
}

int exif_orientation(std::span<const std::uint8_t> exif) {
  constexpr std::size_t orientation_tag = 0x0112, entry_bytes = 12;
  const TiffReader tiff(exif);
  const std::size_t directory = tiff.number(4, 4), count = tiff.number(directory, 2);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t entry = directory + 2 + i * entry_bytes;
    if (tiff.number(entry, 2) != orientation_tag) continue;
    const std::size_t orientation = tiff.number(entry + 8, 2);
    return orientation >= 1 && orientation <= 8 ? static_cast<int>(orientation) : 1;
  }
  return 1;
}

void check_orientation(int orientation) {
  if (orientation == 1) return;
  throw std::invalid_argument("found a picture with the EXIF orientation " + std::to_string(orientation) +
                              ", expected none or 1: rows and columns as they are to be seen");
}

void check_end(std::size_t bytes_left) {
  if (bytes_left == 0) return;
  throw std::invalid_argument("found " + std::to_string(bytes_left) + " bytes behind the picture, expected none");
}

}  // namespace pi0::policy
