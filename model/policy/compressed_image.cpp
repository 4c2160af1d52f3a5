#include "model/policy/compressed_image.h"

#include <algorithm>
#include <array>
#include <stdexcept>

#include "model/policy/jpeg_file.h"
#include "model/policy/png_file.h"

namespace pi0::policy {
namespace {

constexpr std::array<std::uint8_t, 8> png_signature = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
constexpr std::array<std::uint8_t, 3> jpeg_signature = {0xFF, 0xD8, 0xFF};

bool begins_with(std::span<const std::uint8_t> file, std::span<const std::uint8_t> signature) {
  return file.size() >= signature.size() && std::ranges::equal(file.first(signature.size()), signature);
}

}  // namespace

Image decompressed(std::span<const std::uint8_t> file, std::size_t max_bytes) {
  if (begins_with(file, png_signature)) return read_png(file, max_bytes);
  if (begins_with(file, jpeg_signature)) return read_jpeg(file, max_bytes);
  throw std::invalid_argument("found bytes that begin neither as a PNG nor as a JPEG file");
}

}  // namespace pi0::policy
