// Output for people. If the reader of a pipe or the terminal is gone, output is dropped and the program continues; for
// that, programs ignore SIGPIPE. If both streams go to one place, lines appear in the order in which they were printed.
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

// Errors of stderr are ignored. stdout may be a file: throws std::runtime_error if it cannot be written, for example
// because the disk is full.
inline void write_text(std::FILE* stream, const std::string& text) {
  if (stream == stderr) std::fflush(stdout);
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stream) == text.size() || stream == stderr) return;
  if (!is_gone(errno)) refuse_output(errno);
}

// At a program's end: writes what is still buffered; throws as print() does.
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
