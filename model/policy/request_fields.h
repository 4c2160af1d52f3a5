// Fields that robots' requests and answers are made of, read as openpi's NumPy code reads them.
// Every function throws RequestError that names the field, what was found and what was expected.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/policy/image_resize.h"
#include "model/policy/robot.h"
#include "protocol/value.h"

namespace pi0::policy {

// An RGB image [H, W, 3], or [3, H, W] when its first size is 3: uint8, or floats in [0, 1] that
// are scaled by 255 in their own precision and cut to whole numbers. Out of range they wrap, as
// NumPy's do on x86.
Image image_field(const protocol::Dict& request, const std::string& key);

// `count` finite numbers: an array [count] of any real dtype, or a list.
std::vector<double> numbers_field(const protocol::Dict& request, const std::string& key,
                                  std::int64_t count);

// One finite number: a scalar, an array of no axes, or one as in numbers_field.
double number_field(const protocol::Dict& request, const std::string& key);

// "prompt" when there is one: text, bytes of UTF-8, or a NumPy string of one element. Throws when
// it is nil, which openpi too takes for a prompt that is missing and not to be replaced by a
// default.
std::optional<std::string> prompt_field(const protocol::Dict& request);

// The first `count` actions of every step: float64 [horizon, count].
protocol::NdArray leading_actions(const ActionChunk& chunk, std::int64_t count);

}  // namespace pi0::policy
