// What readers of PNG and JPEG files share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "model/policy/image_resize.h"

namespace pi0::policy {

// A black image. Throws std::invalid_argument when it would take more than `max_bytes`.
Image blank_image(std::uint64_t height, std::uint64_t width, std::size_t max_bytes);

// The orientation, 1 to 8, in EXIF data from their TIFF header on; 1 when they have none that can be read.
int exif_orientation(std::span<const std::uint8_t> exif);

// Throws std::invalid_argument when a picture is to be turned or mirrored before it is looked at.
void check_orientation(int orientation);

// Throws std::invalid_argument when bytes follow the picture.
void check_end(std::size_t bytes_left);

}  // namespace pi0::policy
