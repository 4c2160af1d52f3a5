// Reads the fields of robots' requests as openpi's NumPy code does.
// Every function throws RequestError that names the field, what was found and what was expected.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/policy/image_resize.h"
#include "model/policy/lerobot_image.h"
#include "model/policy/robot.h"
#include "model/policy/robot_config.h"
#include "protocol/value.h"

namespace pi0::policy {

// An RGB image laid out as `layout` allows: uint8, or floats in [0, 1] that are scaled by 255 in their own
// precision and truncated to integers. Other floats are refused, or with wrapped_bytes wrap around, as NumPy's do on
// x86. Or the bytes of a PNG or JPEG file, as bin or as a uint8 array of one axis, decompressed as compressed_image.h
// says if height x width x 3 is at most `max_bytes`. `map` is the request's field that holds `fields`; empty if
// `fields` is the request itself.
Image image_field(const protocol::Dict& fields, const std::string& key, ImageLayout layout, const std::string& map,
                  ImageValues values, std::size_t max_bytes = RequestLimits{}.image_bytes);

// The same image as LeRobot's policies see it: uint8 divided by 255, or floats, which are refused outside [0, 1].
FloatImage float_image_field(const protocol::Dict& fields, const std::string& key, ImageLayout layout,
                             const std::string& map, std::size_t max_bytes = RequestLimits{}.image_bytes);

// A field that is a map.
const protocol::Dict& map_field(const protocol::Dict& request, const std::string& key);

enum class Numbers { any, floats };

// `count` finite numbers: an array [count] of any real dtype, or a list; a single number may also be a scalar.
// Numbers::floats refuses what NumPy would store as integers.
std::vector<double> numbers_field(const protocol::Dict& request, const std::string& key, std::int64_t count,
                                  Numbers numbers);

// A field with `columns` finite numbers a row, row-major: an array [n, columns] of any real dtype, 1 <= n <=
// `most_rows`.
std::vector<double> rows_field(const protocol::Dict& request, const std::string& key, std::int64_t most_rows,
                               std::int64_t columns);

// A field with an integer from `low` to `high`, which `expected` puts in words.
std::int64_t integer_field(const protocol::Dict& request, const std::string& key, std::int64_t low, std::int64_t high,
                           const std::string& expected);

// The place of a field's text in `choices`; 0 if the request has no such field.
std::size_t choice_field(const protocol::Dict& request, const std::string& key,
                         std::span<const std::string_view> choices);

// A field with a prompt, if present: text, bytes of UTF-8, or a NumPy string of one element. Throws if it is nil, which
// no default replaces in openpi either, or if it has more than `max_bytes` of UTF-8: the tokenizer's time and memory
// grow faster than the length.
std::optional<std::string> prompt_field(const protocol::Dict& request, const std::string& key, std::size_t max_bytes);

}  // namespace pi0::policy
