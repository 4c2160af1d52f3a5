#include "model/policy/image_resize.h"

#include <algorithm>

#include "model/safetensors.h"
#include "support/catch.h"

namespace pi0::policy {
namespace {

std::vector<std::uint8_t> bytes_of(const at::Tensor& tensor) {
  const auto* data = tensor.const_data_ptr<std::uint8_t>();
  return {data, data + tensor.numel()};
}

// The picture whose resized form resize_more.safetensors holds.
Image pattern(std::int64_t height, std::int64_t width) {
  Image image{height, width, {}};
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      for (std::int64_t c = 0; c < 3; ++c) {
        image.pixels.push_back(static_cast<std::uint8_t>((x * 7 + y * 13) / 8 + c * 85 + (x * y) % 31));
      }
    }
  }
  return image;
}

}  // namespace

TEST_CASE("resize_with_pad gives Pillow's bytes on openpi's pictures", "[policy][resize]") {
  const model::SafetensorsFile goldens("goldens/resize.safetensors");
  int compared = 0;
  for (const auto& [name, entry] : goldens.entries()) {
    if (!name.starts_with("in_")) continue;
    INFO(name);
    const Image image{entry.shape[0], entry.shape[1], bytes_of(goldens.tensor(name))};
    const Image resized = resize_with_pad(image, 224, 224);
    REQUIRE(resized.height == 224);
    REQUIRE(resized.width == 224);
    REQUIRE(resized.pixels == bytes_of(goldens.tensor("out_" + name.substr(3))));
    ++compared;
  }
  REQUIRE(compared == 5);
}

TEST_CASE("resize_with_pad gives Pillow's bytes on extreme sizes", "[policy][resize]") {
  const model::SafetensorsFile goldens("goldens/resize_more.safetensors");
  int compared = 0;
  for (const auto& [height, width] :
       {std::pair{1, 1}, {97, 311}, {2000, 30}, {224, 300}, {480, 640}, {720, 1280}, {1080, 1920}}) {
    const std::string name = "out_" + std::to_string(height) + "x" + std::to_string(width);
    INFO(name);
    const Image resized = resize_with_pad(pattern(height, width), 224, 224);
    REQUIRE(resized.pixels == bytes_of(goldens.tensor(name)));
    ++compared;
  }
  REQUIRE(compared == static_cast<int>(goldens.entries().size()));
}

TEST_CASE("resize_with_pad centres on black", "[policy][resize]") {
  const Image white{10, 20, std::vector<std::uint8_t>(10 * 20 * 3, 255)};
  const Image resized = resize_with_pad(white, 224, 224);  // 112 rows of picture from row 56
  const auto row_sum = [&](std::int64_t row) {
    const auto* first = resized.pixels.data() + row * 224 * 3;
    return std::count(first, first + 224 * 3, 255);
  };
  REQUIRE(row_sum(55) == 0);
  REQUIRE(row_sum(56) == 224 * 3);
  REQUIRE(row_sum(167) == 224 * 3);
  REQUIRE(row_sum(168) == 0);
}

TEST_CASE("resize_with_pad refuses what Pillow refuses", "[policy][resize]") {
  REQUIRE_THROWS_AS(resize_with_pad(pattern(1000, 1), 224, 224), std::invalid_argument);
  REQUIRE_THROWS_AS(resize_with_pad(Image{0, 5, {}}, 224, 224), std::invalid_argument);
}

}  // namespace pi0::policy
