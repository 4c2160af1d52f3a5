// Fields that robots' requests are made of, read as openpi's NumPy code reads them.
// Every function throws RequestError that names the field, what was found and what was expected.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/policy/image_resize.h"
#include "model/policy/robot.h"
#include "model/policy/robot_config.h"
#include "protocol/value.h"

namespace pi0::policy {

// An RGB image laid out as `layout` allows: uint8, or floats in [0, 1] that are scaled by 255 in their
// own precision and cut to whole numbers. Out of range they wrap, as NumPy's do on x86. `map` is the
// name of the field that `fields` is, empty for the request itself.
Image image_field(const protocol::Dict& fields, const std::string& key, ImageLayout layout, const std::string& map);

// A map of fields.
const protocol::Dict& map_field(const protocol::Dict& request, const std::string& key);

enum class Numbers { any, floats };

// `count` finite numbers: an array [count] of any real dtype, or a list; a single one may also come
// without an axis. Numbers::floats refuses what NumPy would hold as whole numbers.
std::vector<double> numbers_field(const protocol::Dict& request, const std::string& key, std::int64_t count,
                                  Numbers numbers);

// "prompt" when there is one: text, bytes of UTF-8, or a NumPy string of one element. Throws when
// it is nil, which openpi too takes for a prompt that is missing and not to be replaced by a
// default, and when it has more than `max_bytes` of UTF-8: tokenizing takes memory and time that grow faster.
std::optional<std::string> prompt_field(const protocol::Dict& request, std::size_t max_bytes);

}  // namespace pi0::policy
