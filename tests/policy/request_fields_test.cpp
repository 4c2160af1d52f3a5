#include "model/policy/request_fields.h"

#include <c10/util/Half.h>

#include <limits>

#include "policy/policy_fixtures.h"
#include "support/catch.h"

namespace pi0::policy {
namespace {

using protocol::Value;

protocol::Dict with(Value value) {
  protocol::Dict request;
  request.set("field", std::move(value));
  return request;
}

template <class Call>
std::string refusal(Value value, Call call) {
  return error_of<RequestError>([&] { call(with(std::move(value))); });
}

Image any_image(const protocol::Dict& request, ImageValues values = ImageValues::bytes) {
  return image_field(request, "field", ImageLayout::any, "", values);
}

std::vector<double> two_numbers(const protocol::Dict& request, Numbers numbers = Numbers::any) {
  return numbers_field(request, "field", 2, numbers);
}

// Pixels of a [1, n / 3, 3] image of floats.
template <class Real>
std::vector<std::uint8_t> pixels(const std::vector<double>& values) {
  std::vector<Real> reals;
  for (const double value : values) reals.push_back(static_cast<Real>(static_cast<float>(value)));
  const auto places = static_cast<std::int64_t>(values.size() / 3);
  return any_image(with(array_of('f', {1, places, 3}, reals)), ImageValues::wrapped_bytes).pixels;
}

}  // namespace

TEST_CASE("image_field takes channels last and channels first", "[policy][request]") {
  const std::vector<std::uint8_t> rgb = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};  // 2 x 2 pixels
  const Image last = any_image(with(array_of('u', {2, 2, 3}, rgb)));
  REQUIRE(last.pixels == rgb);
  const std::vector<std::uint8_t> planes = {1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12};
  const Image first = any_image(with(array_of('u', {3, 2, 2}, planes)));
  REQUIRE(first.height == 2);
  REQUIRE(first.width == 2);
  REQUIRE(first.pixels == rgb);
  // openpi looks at the first size only: three rows are taken for three channels.
  const Image rows = any_image(with(array_of('u', {3, 2, 3}, std::vector<std::uint8_t>(18))));
  REQUIRE(rows.height == 2);
  REQUIRE(rows.width == 3);
}

TEST_CASE("image_field scales floats as NumPy does on x86", "[policy][request]") {
  // (255 * x).astype(np.uint8) of NumPy 1.26
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> values = {0,   0.5, 1,    0.999, 1.004, 1.2, 2,    -0.01, -1,
                                      100, 1e4, -1e4, 1.2e7, nan,   inf, -inf, 0.25,  0.75};
  REQUIRE(pixels<float>(values) ==
          std::vector<std::uint8_t>{0, 127, 255, 254, 0, 50, 254, 254, 1, 156, 240, 16, 0, 0, 0, 0, 63, 191});
  REQUIRE(pixels<double>(values) ==
          std::vector<std::uint8_t>{0, 127, 255, 254, 0, 50, 254, 254, 1, 156, 240, 16, 0, 0, 0, 0, 63, 191});
  REQUIRE(pixels<c10::Half>(values) ==
          std::vector<std::uint8_t>{0, 127, 255, 254, 0, 50, 254, 254, 1, 160, 0, 0, 0, 0, 0, 0, 63, 191});
}

TEST_CASE("image_field refuses floats outside [0, 1] unless they may wrap around", "[policy][request]") {
  const auto image = [](double level) { return with(array_of('f', {1, 1, 3}, std::vector<double>{0, level, 1})); };
  REQUIRE(any_image(image(0.5)).pixels == std::vector<std::uint8_t>{0, 127, 255});
  for (const double wrong : {-0.01, 1.01, 255.0, std::numeric_limits<double>::quiet_NaN()}) {
    REQUIRE_THAT(error_of<RequestError>([&] { any_image(image(wrong)); }),
                 contains_text("field: found the level") && contains_text("uint8 or floats in [0, 1]"));
    REQUIRE_NOTHROW(any_image(image(wrong), ImageValues::wrapped_bytes));
  }
  const auto half = array_of('f', {1, 1, 3}, std::vector<c10::Half>{c10::Half(0), c10::Half(2), c10::Half(1)});
  REQUIRE_THAT(error_of<RequestError>([&] { any_image(with(half)); }), contains_text("found the level 2.0"));
}

TEST_CASE("float_image_field keeps floats and divides bytes", "[policy][request][lerobot]") {
  const auto levels = [](Value value) {
    return float_image_field(with(std::move(value)), "field", ImageLayout::any, "");
  };
  const FloatImage last = levels(array_of('u', {2, 1, 3}, std::vector<std::uint8_t>{0, 51, 255, 1, 2, 3}));
  REQUIRE(last.height == 2);
  REQUIRE(last.width == 1);
  REQUIRE(last.levels == std::vector<float>{0, 1 / 255.0F, 51 / 255.0F, 2 / 255.0F, 1, 3 / 255.0F});
  const FloatImage first = levels(array_of('f', {3, 1, 2}, std::vector<double>{0, 0.1, 0.2, 0.3, 0.4, 1}));
  REQUIRE(first.height == 1);
  REQUIRE(first.width == 2);
  REQUIRE(first.levels == std::vector<float>{0, 0.1F, 0.2F, 0.3F, 0.4F, 1});
  for (const float wrong : {-0.01F, 1.01F, 255.0F, std::numeric_limits<float>::quiet_NaN()}) {
    const Value image = array_of('f', {1, 1, 3}, std::vector<float>{0, wrong, 0});
    REQUIRE_THAT(error_of<RequestError>([&] { levels(image); }),
                 contains_text("field: found the level") && contains_text("floats in [0, 1]"));
  }
  REQUIRE_THAT(error_of<RequestError>([&] { levels(array_of('i', {1, 1, 3}, std::vector<std::int64_t>(3))); }),
               contains_text("field: found int64 array [1, 1, 3]"));
}

TEST_CASE("images may be PNG or JPEG files", "[policy][request][image]") {
  const protocol::Dict goldens = golden_message("images/images.msgpack");
  const auto& taken = std::get<protocol::Dict>(*goldens.find("taken"));
  const auto& png = std::get<protocol::Dict>(*taken.find("png"));
  const auto& file = std::get<protocol::Bytes>(*png.find("file"));
  const auto& pixels = std::get<protocol::NdArray>(*png.find("pixels"));  // 7 x 9
  const auto size = static_cast<std::int64_t>(file.data.size());
  for (const Value& value : {Value(file), Value(array_of('u', {size}, file.data))}) {
    // Its pixels are in rows, whatever the robot's arrays are.
    for (const ImageLayout layout : {ImageLayout::any, ImageLayout::channels_first}) {
      const Image image = image_field(with(value), "field", layout, "", ImageValues::bytes);
      REQUIRE(image.height == 7);
      REQUIRE(image.width == 9);
      REQUIRE(image.pixels == pixels.data);
    }
    const FloatImage levels = float_image_field(with(value), "field", ImageLayout::any, "");
    REQUIRE(levels.levels[63] == static_cast<float>(pixels.data[1]) / 255.0F);
    REQUIRE_THAT(error_of<RequestError>(
                     [&] { image_field(with(value), "field", ImageLayout::any, "images", ImageValues::bytes, 188); }),
                 contains_text("images/field: found a picture of 7 x 9 pixels, expected at most 188 bytes"));
  }
  const auto read = [](const protocol::Dict& request) { any_image(request); };
  REQUIRE_THAT(refusal(protocol::Bytes{{1, 2, 3}}, read), contains_text("field: found bytes that begin neither"));
  REQUIRE_THAT(
      refusal(array_of('i', {3}, std::vector<std::int8_t>(3)), read),
      contains_text("field: found int8 array [3], expected an RGB image") && contains_text("or a PNG or JPEG file"));

  protocol::Dict request = droid_request();
  request.set("observation/wrist_image_left", file);
  REQUIRE(read_request(robot_config("droid"), request).cameras[1].image->pixels == pixels.data);
  REQUIRE_THAT(error_of<RequestError>([&] { read_request(robot_config("droid"), request, {.image_bytes = 188}); }),
               contains_text("observation/wrist_image_left: found a picture"));
}

TEST_CASE("image_field takes a list of rows, as list(image) is one", "[policy][request]") {
  const Value row = array_of('u', {2, 3}, std::vector<std::uint8_t>{1, 2, 3, 4, 5, 6});
  const Image image = any_image(with(protocol::List{{row, row, row}}));
  REQUIRE(image.pixels.size() == 18);
  REQUIRE_THROWS_AS(any_image(with(protocol::List{{row, Value(array_of('u', {1, 3}, std::vector<std::uint8_t>(3)))}})),
                    RequestError);
}

TEST_CASE("image_field names field, found and expected", "[policy][request]") {
  const auto read = [](const protocol::Dict& request) { any_image(request); };
  const auto bytes = [](std::int64_t count) { return std::vector<std::uint8_t>(static_cast<std::size_t>(count)); };
  REQUIRE_THAT(refusal(std::string("x"), read), contains_text("field: found str, expected an RGB image"));
  REQUIRE_THAT(refusal(array_of('u', {4, 4}, bytes(16)), read), contains_text("uint8 array [4, 4]"));
  REQUIRE_THAT(refusal(array_of('u', {4, 4, 4}, bytes(64)), read), contains_text("[4, 4, 4]"));
  REQUIRE_THAT(refusal(array_of('u', {0, 4, 3}, bytes(0)), read), contains_text("not empty"));
  REQUIRE_THAT(refusal(array_of('i', {2, 2, 3}, std::vector<std::int64_t>(12)), read),
               contains_text("field: found int64 array [2, 2, 3]"));
  REQUIRE_THAT(refusal(array_of('b', {2, 2, 3}, bytes(12)), read), contains_text("bool array"));
  REQUIRE_THAT(error_of<RequestError>([] { any_image({}); }), contains_text("field: missing; expected an RGB image"));
}

TEST_CASE("numbers_field takes every real dtype and lists", "[policy][request]") {
  const auto read = [](Value value) { return two_numbers(with(std::move(value))); };
  const std::vector<double> expected = {1, 2};
  REQUIRE(read(array_of<double>('f', {2}, {1, 2})) == expected);
  REQUIRE(read(array_of<float>('f', {2}, {1, 2})) == expected);
  REQUIRE(read(array_of<c10::Half>('f', {2}, {c10::Half(1.0f), c10::Half(2.0f)})) == expected);
  REQUIRE(read(array_of<std::int64_t>('i', {2}, {1, 2})) == expected);
  REQUIRE(read(array_of<std::int32_t>('i', {2}, {1, 2})) == expected);
  REQUIRE(read(array_of<std::int16_t>('i', {2}, {1, 2})) == expected);
  REQUIRE(read(array_of<std::int8_t>('i', {2}, {1, 2})) == expected);
  REQUIRE(read(array_of<std::uint64_t>('u', {2}, {1, 2})) == expected);
  REQUIRE(read(array_of<std::uint32_t>('u', {2}, {1, 2})) == expected);
  REQUIRE(read(array_of<std::uint16_t>('u', {2}, {1, 2})) == expected);
  REQUIRE(read(array_of<std::uint8_t>('u', {2}, {1, 2})) == expected);
  REQUIRE(read(protocol::List{{Value(1.0), Value(std::int64_t{2})}}) == expected);
  const Value one = array_of<float>('f', {}, {1}), two = array_of<std::int32_t>('i', {}, {2});
  REQUIRE(read(protocol::List{{one, two}}) == expected);  // list(array), [np.float32(1), ...]
  REQUIRE(read(protocol::List{{one, Value(2.0)}}) == expected);
}

TEST_CASE("numbers_field refuses wrong sizes, types and numbers that are not finite", "[policy][request]") {
  const auto read = [](const protocol::Dict& request) { two_numbers(request); };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  REQUIRE_THAT(refusal(array_of<double>('f', {3}, {1, 2, 3}), read),
               contains_text("field: found float64 array [3], expected an array of 2 numbers"));
  REQUIRE_THAT(refusal(array_of<double>('f', {1, 2}, {1, 2}), read), contains_text("[1, 2]"));
  REQUIRE_THAT(refusal(array_of<std::uint32_t>('U', {2}, {65, 66}), read), contains_text("found"));
  REQUIRE_THAT(refusal(1.0, read), contains_text("expected an array of 2 numbers"));
  REQUIRE_THAT(refusal(protocol::List{{Value(1.0)}}, read), contains_text("a list of 1"));
  REQUIRE_THAT(refusal(protocol::List{{Value(1.0), Value(std::string("2"))}}, read),
               contains_text("only numbers in the list"));
  REQUIRE_THAT(refusal(protocol::List{{Value(1.0), Value(array_of<float>('f', {1}, {2}))}}, read),
               contains_text("found float32 array [1], expected only numbers in the list"));
  REQUIRE_THAT(refusal(array_of<double>('f', {2}, {1, nan}), read),
               contains_text("field: value 1 is nan, expected finite numbers"));
  REQUIRE_THAT(error_of<RequestError>([] { two_numbers({}); }),
               contains_text("field: missing; expected an array of 2 numbers"));
}

TEST_CASE("numbers_field takes one number without an axis", "[policy][request]") {
  const auto read = [](Value value) { return numbers_field(with(std::move(value)), "field", 1, Numbers::any).at(0); };
  REQUIRE(read(0.5) == 0.5);
  REQUIRE(read(std::int64_t{1}) == 1.0);
  REQUIRE(read(array_of<float>('f', {}, {0.5f})) == 0.5);
  REQUIRE(read(array_of<double>('f', {1}, {0.5})) == 0.5);
  REQUIRE(read(protocol::List{{Value(0.5)}}) == 0.5);
  REQUIRE_THROWS_AS(read(array_of<double>('f', {2}, {0.5, 0.5})), RequestError);
  REQUIRE_THROWS_AS(read(array_of<double>('f', {1, 1}, {0.5})), RequestError);
  REQUIRE_THROWS_AS(read(std::string("0.5")), RequestError);
  REQUIRE_THROWS_AS(read(std::numeric_limits<double>::infinity()), RequestError);
}

TEST_CASE("numbers_field refuses whole numbers where floats are needed", "[policy][request]") {
  const auto read = [](const protocol::Dict& request) { two_numbers(request, Numbers::floats); };
  const Value one = std::int64_t{1};
  REQUIRE(refusal(array_of<float>('f', {2}, {1, 2}), read).empty());
  REQUIRE(refusal(protocol::List{{one, Value(0.5)}}, read).empty());
  REQUIRE(refusal(protocol::List{{one, Value(array_of<float>('f', {}, {2}))}}, read).empty());
  REQUIRE_THAT(refusal(array_of<std::int64_t>('i', {2}, {1, 2}), read),
               contains_text("found int64 array [2], expected an array of 2 floating-point numbers"));
  REQUIRE_THAT(refusal(protocol::List{{one, one}}, read), contains_text("floating-point"));
}

TEST_CASE("image_field knows robots that send channels first only", "[policy][request]") {
  const auto read = [](std::vector<std::int64_t> shape) {
    const auto image = array_of('u', std::move(shape), std::vector<std::uint8_t>(4 * 3 * 3));
    return refusal(image, [](const protocol::Dict& request) {
      image_field(request, "field", ImageLayout::channels_first, "images", ImageValues::bytes);
    });
  };
  REQUIRE(read({3, 4, 3}).empty());
  REQUIRE_THAT(read({4, 3, 3}), contains_text("images/field: found uint8 array [4, 3, 3], expected "
                                              "an RGB image [3, height, width], uint8"));
}

TEST_CASE("prompt_field takes text, bytes and NumPy strings", "[policy][request]") {
  const auto read = [](Value value) {
    protocol::Dict request;
    request.set("prompt", std::move(value));
    return prompt_field(request, "prompt", 16);
  };
  REQUIRE(read(std::string("wipe")) == "wipe");
  REQUIRE(read(protocol::Bytes{{'w', 'i', 'p', 'e'}}) == "wipe");
  REQUIRE(read(array_of<char>('S', {}, {'w', 'i', '\0', '\0'})) == "wi");
  protocol::NdArray text = array_of<std::uint32_t>('U', {}, {0x65e5, 0x672c});
  text.dtype.item_size = 8;
  REQUIRE(read(text) == "日本");
  text.shape = {1};
  REQUIRE(read(text) == "日本");
  REQUIRE_FALSE(prompt_field({}, "prompt", 16).has_value());
  REQUIRE(read(std::string(16, 'x')) == std::string(16, 'x'));
  REQUIRE_THAT(error_of<RequestError>([&] { read(std::string(17, 'x')); }),
               contains_text("prompt: found text of 17 bytes, expected at most 16"));
  REQUIRE_THROWS_AS(read(protocol::Bytes{std::vector<std::uint8_t>(17, 'x')}), RequestError);
  REQUIRE_THROWS_AS(read(array_of<char>('S', {}, std::vector<char>(17, 'x'))), RequestError);
  protocol::NdArray wide =
      array_of<std::uint32_t>('U', {}, std::vector<std::uint32_t>(9, 0x65e5));  // 27 bytes of UTF-8
  wide.dtype.item_size = 36;
  REQUIRE_THROWS_AS(read(wide), RequestError);

  REQUIRE_THROWS_AS(read(std::int64_t{3}), RequestError);
  REQUIRE_THROWS_AS(read(protocol::Bytes{{0xff, 0xfe}}), RequestError);
  const std::string error = error_of<RequestError>([&] { read(std::monostate{}); });
  REQUIRE_THAT(error, contains_text("Prompt is required"));
}

}  // namespace pi0::policy
