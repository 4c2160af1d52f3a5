#include "model/policy/lerobot_image.h"

#include "model/policy/image_resize.h"

namespace pi0::policy {

at::Tensor lerobot_input(const FloatImage& image, std::int64_t height, std::int64_t width, const Padding& padding) {
  const FittedSize fitted = fitted_size(image.height, image.width, height, width);
  at::Tensor levels =  // read only
      at::from_blob(const_cast<float*>(image.levels.data()), {1, 3, image.height, image.width}, at::kFloat);
  if (image.height != height || image.width != width) {
    levels = at::upsample_bilinear2d(levels, {fitted.height, fitted.width}, /*align_corners=*/false).clamp(0.0, 1.0);
  }
  const std::int64_t rows = height - fitted.height, columns = width - fitted.width;
  const bool around = padding.place == Padding::Place::around;
  const std::int64_t top = around ? rows / 2 : rows, left = around ? columns / 2 : columns;
  return at::constant_pad_nd(levels * 2.0 - 1.0, {left, columns - left, top, rows - top}, padding.value);
}

}  // namespace pi0::policy
