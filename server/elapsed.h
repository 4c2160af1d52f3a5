// Wall-clock time since a moment.
#pragma once

#include <chrono>

namespace pi0::server {

inline double ms_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace pi0::server
