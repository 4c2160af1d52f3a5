#include "tools/common/bus_errors.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <string_view>

// All of this runs in a signal handler: no allocation, no locks, system calls only.
namespace pi0::tools {
namespace {

const char* program_name = "";  // global: a signal handler takes no further argument

void say(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

// A line of /proc/self/maps is "begin-end rights offset device inode   path".
bool holds(std::string_view line, std::uintptr_t address) {
  std::uintptr_t begin = 0, end = 0;
  const char* const last = line.data() + line.size();
  const auto [dash, first_error] = std::from_chars(line.data(), last, begin, 16);
  if (first_error != std::errc() || dash == last) return false;
  const auto [rest, second_error] = std::from_chars(dash + 1, last, end, 16);
  return second_error == std::errc() && begin <= address && address < end;
}

void say_mapped_file(std::uintptr_t address) {
  const int maps = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  std::array<char, 8192> line{};
  std::size_t size = 0;
  for (char c = 0; maps >= 0 && ::read(maps, &c, 1) == 1;) {
    if (c != '\n') {
      if (size < line.size()) line[size++] = c;
      continue;
    }
    const std::string_view text(line.data(), size);
    if (holds(text, address) && text.find('/') != text.npos) return say(text.substr(text.find('/')));
    size = 0;
  }
  say("a mapped file");
}

void explain(int, siginfo_t* info, void*) {
  say(program_name);
  say(": ");
  say_mapped_file(reinterpret_cast<std::uintptr_t>(info->si_addr));
  say(": became shorter, or could not be read, while its contents were needed\n");
  ::_exit(1);
}

}  // namespace

void explain_bus_errors(const char* program) {
  program_name = program;
  struct sigaction action = {};
  action.sa_sigaction = explain;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace pi0::tools
