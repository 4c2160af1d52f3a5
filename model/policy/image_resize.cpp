#include "model/policy/image_resize.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <string>

namespace pi0::policy {
namespace {

constexpr std::int64_t channels = 3;
constexpr int precision_bits = 32 - 8 - 2;  // 8 bits of a pixel, 2 against overflow of the sum
constexpr std::int32_t half = 1 << (precision_bits - 1);

std::uint8_t clip(std::int32_t sum) { return static_cast<std::uint8_t>(std::clamp(sum >> precision_bits, 0, 255)); }

// The input pixels along one axis whose weighted mean is an output pixel.
struct Taps {
  std::int64_t first = 0;
  std::vector<std::int32_t> weights;  // fixed point with precision_bits
};

// Triangle filter, widened by the scale when the image shrinks. Weights are
// normalised in float64 and then rounded half away from zero.
// NOLINTBEGIN(bugprone-incorrect-roundings): Pillow adds a half and truncates; lround differs next to a half.
std::vector<Taps> bilinear_taps(std::int64_t input_size, std::int64_t output_size) {
  const double scale = static_cast<double>(input_size) / static_cast<double>(output_size);
  const double support = std::max(scale, 1.0);
  const double inverse_support = 1.0 / support;
  std::vector<Taps> all(static_cast<std::size_t>(output_size));
  std::vector<double> exact;
  for (std::int64_t out = 0; out < output_size; ++out) {
    const double center = (static_cast<double>(out) + 0.5) * scale;
    const auto first = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
    const auto last = std::min(static_cast<std::int64_t>(center + support + 0.5), input_size);
    exact.clear();
    double sum = 0.0;
    for (std::int64_t in = first; in < last; ++in) {
      const double distance = std::abs((static_cast<double>(in) - center + 0.5) * inverse_support);
      exact.push_back(distance < 1.0 ? 1.0 - distance : 0.0);
      sum += exact.back();
    }
    Taps& taps = all[static_cast<std::size_t>(out)];
    taps.first = first;
    for (const double weight : exact) {
      taps.weights.push_back(static_cast<std::int32_t>(0.5 + weight / sum * (1 << precision_bits)));
    }
  }
  return all;
}
// NOLINTEND(bugprone-incorrect-roundings)

Image resize_width(const Image& image, std::int64_t width) {
  const std::vector<Taps> all = bilinear_taps(image.width, width);
  Image resized{image.height, width,
                std::vector<std::uint8_t>(static_cast<std::size_t>(image.height * width * channels))};
  std::uint8_t* target = resized.pixels.data();
  for (std::int64_t row = 0; row < image.height; ++row) {
    const std::uint8_t* source = image.pixels.data() + row * image.width * channels;
    for (const Taps& taps : all) {
      const std::uint8_t* pixel = source + taps.first * channels;
      std::int32_t red = half;
      std::int32_t green = half;
      std::int32_t blue = half;
      for (const std::int32_t weight : taps.weights) {
        red += pixel[0] * weight;
        green += pixel[1] * weight;
        blue += pixel[2] * weight;
        pixel += channels;
      }
      *target++ = clip(red);
      *target++ = clip(green);
      *target++ = clip(blue);
    }
  }
  return resized;
}

Image resize_height(const Image& image, std::int64_t height) {
  const std::vector<Taps> all = bilinear_taps(image.height, height);
  const auto row_size = static_cast<std::size_t>(image.width * channels);
  Image resized{height, image.width, std::vector<std::uint8_t>(all.size() * row_size)};
  std::uint8_t* target = resized.pixels.data();
  std::vector<std::int32_t> sums(row_size);
  for (const Taps& taps : all) {
    std::fill(sums.begin(), sums.end(), half);
    const std::uint8_t* source = image.pixels.data() + static_cast<std::size_t>(taps.first) * row_size;
    for (const std::int32_t weight : taps.weights) {
      for (std::size_t i = 0; i < row_size; ++i) sums[i] += source[i] * weight;
      source += row_size;
    }
    target = std::transform(sums.begin(), sums.end(), target, clip);
  }
  return resized;
}

// As Pillow does: the width first, rounding to 8 bits, and skipping an axis that keeps its size.
Image resize(const Image& image, std::int64_t height, std::int64_t width) {
  Image resized = image.width == width ? image : resize_width(image, width);
  return image.height == height ? resized : resize_height(resized, height);
}

}  // namespace

FittedSize fitted_size(std::int64_t image_height, std::int64_t image_width, std::int64_t height, std::int64_t width) {
  const auto exact_height = static_cast<double>(image_height);
  const auto exact_width = static_cast<double>(image_width);
  const double ratio = std::max(exact_width / static_cast<double>(width), exact_height / static_cast<double>(height));
  const FittedSize fitted{static_cast<std::int64_t>(exact_height / ratio),
                          static_cast<std::int64_t>(exact_width / ratio)};
  if (image_height < 1 || image_width < 1 || fitted.height < 1 || fitted.width < 1) {
    throw std::invalid_argument("an image of " + std::to_string(image_height) + " x " + std::to_string(image_width) +
                                " pixels cannot be fitted into " + std::to_string(height) + " x " +
                                std::to_string(width));
  }
  return fitted;
}

Image resize_with_pad(const Image& image, std::int64_t height, std::int64_t width) {
  if (image.height == height && image.width == width) return image;
  const auto [fitted_height, fitted_width] = fitted_size(image.height, image.width, height, width);
  const Image fitted = resize(image, fitted_height, fitted_width);
  const std::int64_t top = (height - fitted_height) / 2;
  const std::int64_t left = (width - fitted_width) / 2;
  Image framed{height, width, std::vector<std::uint8_t>(static_cast<std::size_t>(height * width * channels))};
  for (std::int64_t row = 0; row < fitted_height; ++row) {
    std::copy_n(fitted.pixels.data() + row * fitted_width * channels, fitted_width * channels,
                framed.pixels.data() + ((top + row) * width + left) * channels);
  }
  return framed;
}

}  // namespace pi0::policy
