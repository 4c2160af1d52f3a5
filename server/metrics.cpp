#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <utility>

namespace pi0::server {
namespace {

prometheus::Counter& request_counter(prometheus::Registry& registry, const std::string& result) {
  return prometheus::BuildCounter()
      .Name("pi0_requests_total")
      .Help("Requests of clients, by result.")
      .Register(registry)
      .Add({{"result", result}});
}

// The buckets reach from milliseconds, a GPU, to minutes, a full-size model with statistics on a CPU.
prometheus::Histogram& latency(prometheus::Registry& registry, const std::string& name, const std::string& help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(
      {},
      prometheus::Histogram::BucketBoundaries{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120});
}

prometheus::MetricFamily family_of(const Gauge& gauge) {
  prometheus::MetricFamily family;
  family.name = gauge.name;
  family.help = gauge.help;
  family.type = prometheus::MetricType::Gauge;
  for (const GaugeValue& seen : gauge.read()) {
    prometheus::ClientMetric& metric = family.metric.emplace_back();
    for (const auto& [name, value] : seen.labels) metric.label.push_back({name, value});
    metric.gauge.value = seen.value;
  }
  return family;
}

}  // namespace

Metrics::Metrics()
    : registry_(std::make_unique<prometheus::Registry>(prometheus::Registry::InsertBehavior::Merge)),
      answered_(request_counter(*registry_, "answered")),
      refused_(request_counter(*registry_, "refused")),
      failed_(request_counter(*registry_, "failed")),
      reset_(request_counter(*registry_, "reset")),
      dropped_(request_counter(*registry_, "dropped")),
      infer_seconds_(latency(*registry_, "pi0_inference_seconds",
                             "Inference time of answered requests; for a batch, of the whole batch.")),
      total_seconds_(latency(*registry_, "pi0_request_seconds",
                             "Time from the arrival of answered requests until their answer was sent.")),
      connections_(
          prometheus::BuildGauge().Name("pi0_connections").Help("Connected clients.").Register(*registry_).Add({})) {}

Metrics::~Metrics() = default;

void Metrics::answered(std::size_t observations, double infer_seconds, double total_seconds) {
  answered_.Increment(static_cast<double>(observations));
  infer_seconds_.Observe(infer_seconds);
  total_seconds_.Observe(total_seconds);
}

std::uint64_t Metrics::answered_count() const { return static_cast<std::uint64_t>(answered_.Value()); }
void Metrics::refused() { refused_.Increment(); }
void Metrics::failed() { failed_.Increment(); }
void Metrics::reset() { reset_.Increment(); }
void Metrics::dropped(std::size_t count) { dropped_.Increment(static_cast<double>(count)); }
void Metrics::connection_opened() { connections_.Increment(); }
void Metrics::connection_closed() { connections_.Decrement(); }
void Metrics::add(Gauge gauge) { gauges_.push_back(std::move(gauge)); }

std::string Metrics::text() const {
  std::vector<prometheus::MetricFamily> families = registry_->Collect();
  for (const Gauge& gauge : gauges_) families.push_back(family_of(gauge));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace pi0::server
