// UTF-8 as Python reads it, and text cut short for error messages.
#pragma once

#include <string>
#include <string_view>

namespace pi0::protocol {

bool is_utf8(std::string_view text);  // as strict as Python: no surrogates, no overlong forms

// The first 80 bytes, without half a character at the end; "<binary>" for what is not UTF-8.
std::string clipped(std::string_view text);

}  // namespace pi0::protocol
