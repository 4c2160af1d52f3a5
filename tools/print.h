// Printing to people, who may have left: what is written to a pipe or a terminal that is gone is dropped, and long work
// goes on.
// Programs ignore SIGPIPE for that. Where both streams go to one place, lines come in the order in which they were
// printed.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace pi0::tools {

inline bool is_gone(int error) { return error == EPIPE || error == EIO; }  // EIO: of a terminal that was closed

[[noreturn]] inline void refuse_output(int error) {
  throw std::runtime_error(std::string("standard output: cannot be written: ") + std::strerror(error));
}

// To stderr, whatever becomes of it, or to stdout, which may be a file: throws std::runtime_error where that cannot be
// written though it is there, as when its disk is full.
inline void write_text(std::FILE* stream, const std::string& text) {
  if (stream == stderr) std::fflush(stdout);
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stream) == text.size() || stream == stderr) return;
  if (!is_gone(errno)) refuse_output(errno);
}

// At a program's end: throws as print() does for what was still on its way to stdout.
inline void flush_output() {
  errno = 0;
  if (std::fflush(stdout) != 0 && !is_gone(errno)) refuse_output(errno);
}

// "1 thread", "2 threads"; the plural is the noun with an s.
inline std::string counted(std::size_t number, const std::string& noun) {
  return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
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
