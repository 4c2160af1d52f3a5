// Wall-clock time of parts of a program.
#pragma once

#include <chrono>
#include <utility>

namespace pi0::tools {

// Seconds since it was made, or since the last lap.
class Stopwatch {
 public:
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(start_, now)).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace pi0::tools
