// What a server counts while it runs, as Prometheus reads it. Any thread may call.
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

  // What became of a message of a client. Dropped: the client or the server went away before its turn.
  void answered(double infer_seconds, double total_seconds);  // the total from its arrival to the answer's end
  void refused();                                             // not a request that can be read
  void failed();                                              // the policy did not answer it
  void dropped(std::size_t count);
  std::uint64_t answered_count() const;  // so far

  void connection_opened();
  void connection_closed();

  void add(Gauge gauge);  // before the first text()

  // Prometheus' text format, version 0.0.4. Throws what a gauge throws.
  std::string text() const;

 private:
  const std::unique_ptr<prometheus::Registry> registry_;
  prometheus::Counter& answered_;
  prometheus::Counter& refused_;
  prometheus::Counter& failed_;
  prometheus::Counter& dropped_;
  prometheus::Histogram& infer_seconds_;
  prometheus::Histogram& total_seconds_;
  prometheus::Gauge& connections_;
  std::vector<Gauge> gauges_;
};

}  // namespace pi0::server
