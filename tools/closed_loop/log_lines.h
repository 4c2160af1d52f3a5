// The line of a program's output that says what went wrong.
#pragma once

#include <string>

namespace pi0::tools {

inline std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// Without blank lines and blanks at its end.
inline std::string last_line(std::string text) {
  text.erase(text.find_last_not_of(" \t\n\v\f\r") + 1);
  return text.substr(text.find_last_of('\n') + 1);
}

}  // namespace pi0::tools
