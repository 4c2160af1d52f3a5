#include "server/latency_summary.h"

#include <spdlog/spdlog.h>

#include <cstddef>

#include "server/spread.h"

namespace pi0::server {

void LatencySummary::add(double infer_ms, double queue_ms) {
  infer_ms_.push_back(infer_ms);
  queue_ms_.push_back(queue_ms);
}

void LatencySummary::flush() {
  if (infer_ms_.empty()) return;
  const std::size_t count = infer_ms_.size();
  const Spread infer = spread_of(infer_ms_), queue = spread_of(queue_ms_);
  spdlog::info("{} request{} answered: infer_ms median {:.1f}, worst {:.1f}; queue_ms median {:.1f}, worst {:.1f}",
               count, count == 1 ? "" : "s", infer.median, infer.worst, queue.median, queue.worst);
  infer_ms_.clear();
  queue_ms_.clear();
}

}  // namespace pi0::server
