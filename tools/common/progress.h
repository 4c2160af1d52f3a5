// Progress of long work on stderr: one line that is redrawn on a terminal, otherwise at most a line per tenth.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace pi0::tools {

class Progress {
 public:
  enum class Unit { items, bytes };
  Progress(std::string label, Unit unit);
  void update(std::uint64_t done, std::uint64_t total);  // the last call has done == total

 private:
  std::string label_;
  Unit unit_;
  bool terminal_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point drawn_;
  std::uint64_t tenth_ = 0;
};

}  // namespace pi0::tools
