#include "tools/common/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "tools/common/print.h"

namespace pi0::tools {
namespace {

std::string amount(std::uint64_t done, std::uint64_t total, Progress::Unit unit) {
  if (unit == Progress::Unit::items) return fmt::format("{} of {}", done, total);
  const bool large = total >= std::uint64_t{1} << 30;
  const double size = large ? 1 << 30 : 1 << 20;
  return fmt::format("{:.2f} of {:.2f} {}", static_cast<double>(done) / size, static_cast<double>(total) / size,
                     large ? "GiB" : "MiB");
}

}  // namespace

Progress::Progress(std::string label, Unit unit)
    : label_(std::move(label)),
      unit_(unit),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      drawn_(start_) {}

void Progress::update(std::uint64_t done, std::uint64_t total) {
  const auto now = std::chrono::steady_clock::now();
  const bool finished = done >= total;
  const std::uint64_t tenth = total == 0 ? 10 : done * 10 / total;
  const auto pause = std::chrono::milliseconds(terminal_ ? 100 : 2000);
  if (!finished && (now - drawn_ < pause || (!terminal_ && tenth == tenth_))) return;
  drawn_ = now;
  tenth_ = tenth;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double left = done == 0 ? 0.0 : seconds * static_cast<double>(total - done) / static_cast<double>(done);
  const std::string time = finished ? fmt::format("{:.1f} s", seconds) : fmt::format("{:.0f} s left", left);
  print(stderr, "{}{}: {}, {}{}", terminal_ ? "\r\x1b[K" : "", label_, amount(done, total, unit_), time,
        terminal_ && !finished ? "" : "\n");
  std::fflush(stderr);
}

}  // namespace pi0::tools
