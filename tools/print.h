// Printing to people, who may have left: what is written to a pipe whose reader is gone is dropped, and long work goes on.
// Programs ignore SIGPIPE for that.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace pi0::tools {

// To stderr, whatever becomes of it, or to stdout, which may be a file: throws std::runtime_error where that cannot be
// written though it is there, as when its disk is full.
inline void write_text(std::FILE* stream, const std::string& text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stream) == text.size() || stream == stderr) return;
  if (errno == EPIPE) return;
  throw std::runtime_error(std::string("standard output: cannot be written: ") + std::strerror(errno));
}

template <class... Values>
void print(std::FILE* stream, fmt::format_string<Values...> format, Values&&... values) {
  write_text(stream, fmt::format(format, std::forward<Values>(values)...));
}

template <class... Values>
void print(fmt::format_string<Values...> format, Values&&... values) {
  write_text(stdout, fmt::format(format, std::forward<Values>(values)...));
}

}  // namespace pi0::tools
