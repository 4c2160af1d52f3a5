// Counters, latencies and gauges in Prometheus' format. Any thread may call, except add().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/gauge.h"

namespace prometheus {
class Registry;
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace pi0::server {

class Metrics {
 public:
  Metrics();
  ~Metrics();

  // The result of a client's message. An answered batch counts as so many requests; `total_seconds` is from its last
  // byte until the answer was sent.
  void answered(std::size_t observations, double infer_seconds, double total_seconds);
  void refused();                   // it could not be decoded
  void failed();                    // the policy threw
  void reset();                     // it was no inference: the endpoint "reset"
  void dropped(std::size_t count);  // the connection ended first
  std::uint64_t answered_count() const;

  void connection_opened();
  void connection_closed();

  void add(Gauge gauge);  // before the first text()

  // Prometheus' text format, version 0.0.4. Throws what a gauge's read() throws.
  std::string text() const;

 private:
  const std::unique_ptr<prometheus::Registry> registry_;
  prometheus::Counter& answered_;
  prometheus::Counter& refused_;
  prometheus::Counter& failed_;
  prometheus::Counter& reset_;
  prometheus::Counter& dropped_;
  prometheus::Histogram& infer_seconds_;
  prometheus::Histogram& total_seconds_;
  prometheus::Gauge& connections_;
  std::vector<Gauge> gauges_;
};

}  // namespace pi0::server
