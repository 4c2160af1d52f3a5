// A JPEG file as an image.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "model/policy/image_resize.h"

namespace pi0::policy {

// As decompressed().
Image read_jpeg(std::span<const std::uint8_t> file, std::size_t max_bytes);

}  // namespace pi0::policy
