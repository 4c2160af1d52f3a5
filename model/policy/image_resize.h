// Fits an image into a frame without distortion, as openpi's client and server do with Pillow.
// Reference: openpi-client image_tools.resize_with_pad and src/libImaging/Resample.c of the Pillow
// that openpi locks (11.2), to the byte. Pillow 13 resizes very tall images along the height
// first, and differs there by one level in some pixels.
#pragma once

#include <cstdint>
#include <vector>

namespace pi0::policy {

struct Image {
  std::int64_t height = 0;  // pixels
  std::int64_t width = 0;
  std::vector<std::uint8_t> pixels;  // [height, width, 3], RGB
};

struct FittedSize {
  std::int64_t height = 0;
  std::int64_t width = 0;
};

// The largest size of an image's aspect ratio that fits into a frame. Throws std::invalid_argument if the image is
// empty, or if its shorter side would shrink to nothing.
FittedSize fitted_size(std::int64_t image_height, std::int64_t image_width, std::int64_t height, std::int64_t width);

// Scales with Pillow's antialiased bilinear filter until the image touches the frame, and centres it on black. An image
// of the frame's size is returned as it is. Throws as fitted_size().
Image resize_with_pad(const Image& image, std::int64_t height, std::int64_t width);

}  // namespace pi0::policy
