#include "model/policy/lerobot_image.h"

#include <stdexcept>

#include "support/catch.h"

namespace pi0::policy {
namespace {

using Place = Padding::Place;

// Level i is (37 i + 11) mod 256 of 255.
FloatImage float_pattern(std::int64_t height, std::int64_t width) {
  FloatImage image{height, width, {}};
  for (std::int64_t i = 0; i < 3 * height * width; ++i) {
    image.levels.push_back(static_cast<float>((i * 37 + 11) % 256) / 255.0F);
  }
  return image;
}

// The green plane in a frame of 4 x 4.
at::Tensor green(const FloatImage& image, const Padding& padding) {
  const at::Tensor input = lerobot_input(image, 4, 4, padding);
  REQUIRE(input.sizes() == at::IntArrayRef{1, 3, 4, 4});
  REQUIRE(input.scalar_type() == at::kFloat);
  return input[0][1];
}

bool is_close(const at::Tensor& plane, const std::vector<float>& expected) {
  return at::allclose(plane, at::tensor(expected).view({4, 4}), 0.0, 1e-6);
}

}  // namespace

// What LeRobot's own functions return.
TEST_CASE("lerobot_input fits and pads as every version of LeRobot", "[policy][lerobot]") {
  const float a[] = {0.827451F, -0.2460784F, -0.7813725F, -0.6F, -0.3098039F, -0.1284314F, 0.0892156F, 0.2705883F};
  for (const float pad : {-1.0F, -3.0F}) {
    CHECK(is_close(green(float_pattern(2, 3), {Place::around, pad}),
                   {pad, pad, pad, pad, a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], pad, pad, pad, pad}));
    CHECK(is_close(green(float_pattern(2, 3), {Place::left_top, pad}),
                   {pad, pad, pad, pad, pad, pad, pad, pad, a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]}));
  }
  // Without antialiasing: a Pillow filter would average more rows.
  const float b[] = {-0.2392157F, -0.0352941F, -0.2156863F, 0.1137255F, 0.0588236F, 0.3882353F, 0.2078432F, 0.4117647F};
  CHECK(is_close(green(float_pattern(7, 4), {}),
                 {-1, b[0], b[1], -1, -1, b[2], b[3], -1, -1, b[4], b[5], -1, -1, b[6], b[7], -1}));
  CHECK(is_close(green(float_pattern(7, 4), {Place::left_top, -1.0}),
                 {-1, -1, b[0], b[1], -1, -1, b[2], b[3], -1, -1, b[4], b[5], -1, -1, b[6], b[7]}));
}

TEST_CASE("lerobot_input leaves an image of the frame's size as it is", "[policy][lerobot]") {
  const FloatImage image = float_pattern(4, 4);
  const at::Tensor levels = at::tensor(image.levels).view({1, 3, 4, 4});
  REQUIRE(at::equal(lerobot_input(image, 4, 4, {Place::around, -3.0}), levels * 2.0 - 1.0));
}

TEST_CASE("lerobot_input refuses images that would shrink to nothing", "[policy][lerobot]") {
  REQUIRE_THROWS_AS(lerobot_input(float_pattern(1000, 1), 4, 4, {}), std::invalid_argument);
  REQUIRE_THROWS_AS(lerobot_input({0, 5, {}}, 4, 4, {}), std::invalid_argument);
}

}  // namespace pi0::policy
