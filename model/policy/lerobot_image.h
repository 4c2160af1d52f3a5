// Fits an image into the model's frame as LeRobot does: in floats, without antialiasing.
// Reference: resize_with_pad_torch and _preprocess_images of LeRobot's policies/pi0/modeling_pi0.py (0.4 and later);
// resize_with_pad and prepare_images of the same file (up to 0.3).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace pi0::policy {

struct FloatImage {
  std::int64_t height = 0;  // pixels
  std::int64_t width = 0;
  std::vector<float> levels;  // [3, height, width], RGB in [0, 1]
};

// What surrounds an image of another aspect ratio.
struct Padding {
  enum class Place {
    around,   // the image is centred
    left_top  // the image is at the right or at the bottom (LeRobot up to 0.3)
  };
  Place place = Place::around;
  double value = -1.0;  // black is -1; LeRobot 0.4 has -3
};

// [1, 3, height, width] float32 in [-1, 1]. An image of the frame's size is not resized. Throws std::invalid_argument
// if the image is empty, or if its shorter side would shrink to nothing.
at::Tensor lerobot_input(const FloatImage& image, std::int64_t height, std::int64_t width, const Padding& padding);

}  // namespace pi0::policy
