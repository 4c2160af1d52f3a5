#include "model/policy/request_fields.h"

#include <c10/util/Half.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <stdexcept>
#include <string_view>

#include "model/policy/compressed_image.h"
#include "model/policy/python_text.h"
#include "protocol/msgpack_numpy.h"
#include "protocol/openpi_messages.h"
#include "protocol/utf8.h"

namespace pi0::policy {
namespace {

using protocol::DType;
using protocol::NdArray;
using protocol::Value;

[[noreturn]] void refuse(const std::string& key, const Value& found, const std::string& expected) {
  throw RequestError(key + ": found " + protocol::type_name(found) + ", expected " + expected);
}

const Value& field(const protocol::Dict& request, const std::string& key, const std::string& expected) {
  const Value* value = request.find(key);
  if (value == nullptr) throw RequestError(key + ": missing; expected " + expected);
  return *value;
}

template <class Number>
Number element(const NdArray& array, std::size_t index) {
  Number value;
  std::memcpy(&value, array.data.data() + index * sizeof(Number), sizeof(Number));
  return value;
}

template <class Number>
std::vector<double> as_doubles(const NdArray& array) {
  std::vector<double> values(static_cast<std::size_t>(array.element_count()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<double>(element<Number>(array, i));
  }
  return values;
}

std::optional<std::vector<double>> real_numbers(const NdArray& array) {
  const DType dtype = array.dtype;
  if (dtype == DType{'f', 8}) return as_doubles<double>(array);
  if (dtype == DType{'f', 4}) return as_doubles<float>(array);
  if (dtype == DType{'f', 2}) return as_doubles<c10::Half>(array);
  if (dtype == DType{'i', 8}) return as_doubles<std::int64_t>(array);
  if (dtype == DType{'i', 4}) return as_doubles<std::int32_t>(array);
  if (dtype == DType{'i', 2}) return as_doubles<std::int16_t>(array);
  if (dtype == DType{'i', 1}) return as_doubles<std::int8_t>(array);
  if (dtype == DType{'u', 8}) return as_doubles<std::uint64_t>(array);
  if (dtype == DType{'u', 4}) return as_doubles<std::uint32_t>(array);
  if (dtype == DType{'u', 2}) return as_doubles<std::uint16_t>(array);
  if (dtype == DType{'u', 1} || dtype == DType{'b', 1}) return as_doubles<std::uint8_t>(array);
  return std::nullopt;
}

std::optional<double> scalar(const Value& value) {
  if (const auto* real = std::get_if<double>(&value)) return *real;
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return static_cast<double>(*integer);
  if (const auto* natural = std::get_if<std::uint64_t>(&value)) return static_cast<double>(*natural);
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? 1.0 : 0.0;
  const auto* array = std::get_if<NdArray>(&value);  // a NumPy scalar, as list(array) holds them
  if (array == nullptr || !array->shape.empty()) return std::nullopt;
  const std::optional<std::vector<double>> numbers = real_numbers(*array);
  return numbers ? std::optional(numbers->front()) : std::nullopt;
}

bool holds_floats(const Value& value) {
  if (const auto* list = std::get_if<protocol::List>(&value)) return std::ranges::any_of(list->items, holds_floats);
  const auto* array = std::get_if<NdArray>(&value);
  return array != nullptr ? array->dtype.kind == 'f' : std::holds_alternative<double>(value);
}

std::vector<double> list_of(const protocol::List& list, const std::string& key, const std::string& expected,
                            std::int64_t count) {
  if (list.items.size() != static_cast<std::size_t>(count)) {
    throw RequestError(key + ": found a list of " + std::to_string(list.items.size()) + ", expected " + expected);
  }
  std::vector<double> numbers;
  for (const Value& item : list.items) {
    const std::optional<double> number = scalar(item);
    if (!number) refuse(key, item, "only numbers in the list");
    numbers.push_back(*number);
  }
  return numbers;
}

void check_finite(const std::string& key, const std::vector<double>& values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      throw RequestError(key + ": value " + std::to_string(i) + " is " + std::to_string(values[i]) +
                         ", expected finite numbers");
    }
  }
}

// astype(np.uint8) of a float: truncated to a 32-bit integer, of which the low byte is kept.
std::uint8_t low_byte(double value) {
  constexpr double limit = 2147483648.0;
  if (!(value > -limit - 1.0 && value < limit)) return 0;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(value));
}

template <class Real>
std::vector<std::uint8_t> scaled_pixels(const NdArray& array) {
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(array.element_count()));
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    const Real scaled = static_cast<Real>(255) * element<Real>(array, i);
    pixels[i] = low_byte(static_cast<double>(scaled));
  }
  return pixels;
}

std::optional<std::vector<std::uint8_t>> pixels_of(const NdArray& array) {
  if (array.dtype == DType{'u', 1}) return array.data;
  if (array.dtype == DType{'f', 2}) return scaled_pixels<c10::Half>(array);
  if (array.dtype == DType{'f', 4}) return scaled_pixels<float>(array);
  if (array.dtype == DType{'f', 8}) return scaled_pixels<double>(array);
  return std::nullopt;
}

std::vector<std::uint8_t> channels_last(const std::vector<std::uint8_t>& planes) {
  const std::size_t plane = planes.size() / 3;
  std::vector<std::uint8_t> pixels(planes.size());
  for (std::size_t i = 0; i < plane; ++i) {
    for (std::size_t channel = 0; channel < 3; ++channel) {
      pixels[i * 3 + channel] = planes[channel * plane + i];
    }
  }
  return pixels;
}

std::vector<float> planes_of(const std::vector<float>& levels) {
  const std::size_t plane = levels.size() / 3;
  std::vector<float> planes(levels.size());
  for (std::size_t i = 0; i < plane; ++i) {
    for (std::size_t channel = 0; channel < 3; ++channel) planes[channel * plane + i] = levels[i * 3 + channel];
  }
  return planes;
}

template <class Real>
std::vector<float> as_floats(const NdArray& array) {
  std::vector<float> levels(static_cast<std::size_t>(array.element_count()));
  for (std::size_t i = 0; i < levels.size(); ++i) levels[i] = static_cast<float>(element<Real>(array, i));
  return levels;
}

std::optional<std::vector<float>> levels_of(const NdArray& array) {
  if (array.dtype == DType{'f', 2}) return as_floats<c10::Half>(array);
  if (array.dtype == DType{'f', 4}) return as_floats<float>(array);
  if (array.dtype == DType{'f', 8}) return as_floats<double>(array);
  if (array.dtype != DType{'u', 1}) return std::nullopt;
  std::vector<float> levels(array.data.begin(), array.data.end());
  for (float& level : levels) level /= 255.0F;
  return levels;
}

// The bytes of a file, as a client's bytes or np.frombuffer(file, np.uint8). Nothing for other values.
std::optional<std::span<const std::uint8_t>> file_bytes(const Value& value) {
  if (const auto* bytes = std::get_if<protocol::Bytes>(&value)) return bytes->data;
  const auto* array = std::get_if<NdArray>(&value);
  if (array == nullptr || array->dtype != DType{'u', 1} || array->shape.size() != 1) return std::nullopt;
  return array->data;
}

// A field with an image whose shape is right.
struct Picture {
  std::string name;
  std::string expected;
  const Value& value;
  std::optional<NdArray> made;  // of a list, or of a file
  bool channels_first;
  std::int64_t height, width;
  const NdArray& array() const { return made ? *made : std::get<NdArray>(value); }
  [[noreturn]] void refuse() const { policy::refuse(name, value, expected); }
};

Picture picture_field(const protocol::Dict& fields, const std::string& key, ImageLayout layout, const std::string& map,
                      std::size_t max_bytes) {
  const std::string name = map.empty() ? key : map + "/" + key;
  const bool any_layout = layout == ImageLayout::any;
  const std::string expected = std::string("an RGB image ") + (any_layout ? "[height, width, 3] or " : "") +
                               "[3, height, width], uint8 or floats in [0, 1], or a PNG or JPEG file";
  const Value* value = fields.find(key);
  if (value == nullptr) throw RequestError(name + ": missing; expected " + expected);
  if (const auto file = file_bytes(*value)) {
    try {
      Image image = decompressed(*file, max_bytes);
      NdArray pixels{{'u', 1}, {image.height, image.width, 3}, std::move(image.pixels)};
      return {name, expected, *value, std::move(pixels), /*channels_first=*/false, image.height, image.width};
    } catch (const std::invalid_argument& error) {
      throw RequestError(name + ": " + error.what());
    }
  }
  const auto* list = std::get_if<protocol::List>(value);
  std::optional<NdArray> stacked = list ? protocol::stacked(*list) : std::nullopt;  // list(image)
  const auto* array = stacked ? &*stacked : std::get_if<NdArray>(value);
  if (array == nullptr || array->shape.size() != 3) refuse(name, *value, expected);
  const bool channels_first = array->shape[0] == 3;
  if (!channels_first && !(any_layout && array->shape[2] == 3)) refuse(name, *value, expected);
  if (array->element_count() == 0) refuse(name, *value, "an image that is not empty");
  const std::int64_t height = array->shape[channels_first ? 1 : 0], width = array->shape[channels_first ? 2 : 1];
  return {name, expected, *value, std::move(stacked), channels_first, height, width};
}

void check_levels(const Picture& picture, const std::vector<float>& levels) {
  for (const float level : levels) {
    if (level >= 0.0F && level <= 1.0F) continue;
    throw RequestError(picture.name + ": found the level " + std::to_string(level) + ", expected " + picture.expected);
  }
}

}  // namespace

Image image_field(const protocol::Dict& fields, const std::string& key, ImageLayout layout, const std::string& map,
                  ImageValues values, std::size_t max_bytes) {
  const Picture picture = picture_field(fields, key, layout, map, max_bytes);
  std::optional<std::vector<std::uint8_t>> pixels = pixels_of(picture.array());
  if (!pixels) picture.refuse();
  const bool has_floats = picture.array().dtype.kind == 'f';
  if (has_floats && values != ImageValues::wrapped_bytes) check_levels(picture, *levels_of(picture.array()));
  return {picture.height, picture.width, picture.channels_first ? channels_last(*pixels) : *std::move(pixels)};
}

FloatImage float_image_field(const protocol::Dict& fields, const std::string& key, ImageLayout layout,
                             const std::string& map, std::size_t max_bytes) {
  const Picture picture = picture_field(fields, key, layout, map, max_bytes);
  std::optional<std::vector<float>> levels = levels_of(picture.array());
  if (!levels) picture.refuse();
  check_levels(picture, *levels);
  return {picture.height, picture.width, picture.channels_first ? *std::move(levels) : planes_of(*levels)};
}

const protocol::Dict& map_field(const protocol::Dict& request, const std::string& key) {
  const std::string expected = "a map of images by camera";
  const Value& value = field(request, key, expected);
  const auto* map = std::get_if<protocol::Dict>(&value);
  if (map == nullptr) refuse(key, value, expected);
  return *map;
}

std::vector<double> numbers_field(const protocol::Dict& request, const std::string& key, std::int64_t count,
                                  Numbers kind) {
  const std::string numbers_text = kind == Numbers::floats ? " floating-point number" : " number";
  const std::string expected = count == 1 ? "a" + numbers_text + " or an array of 1" + numbers_text
                                          : "an array of " + std::to_string(count) + numbers_text + "s";
  const Value& value = field(request, key, expected);
  std::optional<std::vector<double>> numbers;
  const auto* array = std::get_if<NdArray>(&value);
  if (array != nullptr && array->shape == std::vector<std::int64_t>{count}) {
    numbers = real_numbers(*array);
  } else if (const auto* list = std::get_if<protocol::List>(&value)) {
    numbers = list_of(*list, key, expected, count);
  } else if (const std::optional<double> number = scalar(value); number && count == 1) {
    numbers = {*number};
  }
  if (!numbers || (kind == Numbers::floats && !holds_floats(value))) refuse(key, value, expected);
  check_finite(key, *numbers);
  return *std::move(numbers);
}

std::vector<double> rows_field(const protocol::Dict& request, const std::string& key, std::int64_t most_rows,
                               std::int64_t columns) {
  const std::string expected =
      "an array [n, " + std::to_string(columns) + "] of numbers, n from 1 to " + std::to_string(most_rows);
  const Value& value = field(request, key, expected);
  const auto* array = std::get_if<NdArray>(&value);
  const bool fits = array != nullptr && array->shape.size() == 2 && array->shape[0] >= 1 &&
                    array->shape[0] <= most_rows && array->shape[1] == columns;
  std::optional<std::vector<double>> numbers = fits ? real_numbers(*array) : std::nullopt;
  if (!numbers) refuse(key, value, expected);
  check_finite(key, *numbers);
  return *std::move(numbers);
}

std::int64_t integer_field(const protocol::Dict& request, const std::string& key, std::int64_t low, std::int64_t high,
                           const std::string& expected) {
  const Value& value = field(request, key, expected);
  const auto* array = std::get_if<NdArray>(&value);
  const bool is_integer = array != nullptr ? array->dtype.kind == 'i' || array->dtype.kind == 'u'
                                           : std::holds_alternative<std::int64_t>(value);
  const std::optional<double> number = is_integer ? scalar(value) : std::nullopt;
  if (!number) refuse(key, value, expected);
  if (*number < static_cast<double>(low) || *number > static_cast<double>(high)) {
    throw RequestError(c10::str(key, ": found ", *number, ", expected ", expected));
  }
  return static_cast<std::int64_t>(*number);
}

std::size_t choice_field(const protocol::Dict& request, const std::string& key,
                         std::span<const std::string_view> choices) {
  const Value* value = request.find(key);
  if (value == nullptr) return 0;
  const auto* text = std::get_if<std::string>(value);
  const auto found = text == nullptr ? choices.end() : std::ranges::find(choices, *text);
  if (found != choices.end()) return static_cast<std::size_t>(found - choices.begin());
  std::string expected;
  for (const std::string_view choice : choices) expected += (expected.empty() ? "" : ", ") + std::string(choice);
  throw RequestError(key + ": found " + (text == nullptr ? protocol::type_name(*value) : "'" + *text + "'") +
                     ", expected one of " + expected);
}

std::optional<std::string> prompt_field(const protocol::Dict& request, const std::string& key, std::size_t max_bytes) {
  const Value* value = request.find(key);
  if (value == nullptr) return std::nullopt;
  if (std::holds_alternative<std::monostate>(*value)) {
    throw RequestError("Prompt is required; " + key + ": found nil, expected text");
  }
  const auto check_length = [&](std::size_t bytes) {
    if (bytes <= max_bytes) return;
    throw RequestError(key + ": found text of " + std::to_string(bytes) + " bytes, expected at most " +
                       std::to_string(max_bytes) + " (the server's --max-prompt-bytes)");
  };
  std::optional<std::string> text;
  if (const auto* string = std::get_if<std::string>(value)) {
    check_length(string->size());
    text = *string;
  } else if (const auto* bytes = std::get_if<protocol::Bytes>(value)) {
    check_length(bytes->data.size());
    text.emplace(bytes->data.begin(), bytes->data.end());
  } else if (const auto* array = std::get_if<NdArray>(value)) {
    check_length(array->data.size() / 4);  // dtype U has 4 bytes for a character; padding counts too
    if (array->dtype.kind == 'U' && array->element_count() == 1) text = text_of_utf32(array->data);
    if (array->dtype.kind == 'S' && array->shape.empty()) {
      text.emplace(array->data.begin(), array->data.end());
      text->resize(text->find_last_not_of('\0') + 1);  // NumPy pads with NULs
    }
    if (text) check_length(text->size());
  }
  if (!text) refuse(key, *value, "text");
  if (!protocol::is_utf8(*text)) throw RequestError(key + ": found bytes that are not UTF-8, expected text");
  return text;
}

}  // namespace pi0::policy
