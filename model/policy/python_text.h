// Python's and NumPy's text functions that openpi applies to prompts.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace pi0::policy {

// str.strip(): drops what Unicode calls white space (and \x1c to \x1f) at both ends of valid UTF-8.
std::string_view python_strip(std::string_view text);

// The text of one element of a NumPy 'U' array: little-endian UTF-32, its trailing NULs dropped.
// Empty if a code point is not a character.
std::optional<std::string> text_of_utf32(std::span<const std::uint8_t> data);

}  // namespace pi0::policy
