// The error statistics of one model: an entry per hooked site. The model's thread observes; a request's observations
// are added all at once when it finishes. Any thread may read or reset. No LibTorch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "quant/formats/error_stats.h"

namespace pi0::quant {

using formats::ByCause;
using formats::CallError;
using formats::ErrorStats;

struct SiteEntry {
  std::string layer;  // the site's path
  std::string component;
  std::string kind;  // linear, attention, kv_cache or vector
  std::int64_t in_features = 0;
  std::int64_t out_features = 0;
  ErrorStats errors;
  ByCause<ErrorStats> causes = {};  // without a call unless errors are split
};

struct StatsSnapshot {
  std::vector<SiteEntry> sites;  // in the order they were added
  std::int64_t requests = 0;     // finished ones
  std::int64_t measured = 0;     // those that were observed
  std::string start;             // of counting, UTC, ISO 8601
};

class StatsBook {
 public:
  StatsBook();

  // Call before the first observation. Returns the site's index for observe(). A layer that is known keeps its entry.
  std::size_t add_site(const SiteEntry& site);

  // On the model's thread: the error of one call, or of several, for a sample of the current request.
  void observe(std::size_t site, std::size_t sample, const CallError& call);
  void observe(std::size_t site, std::size_t sample, const ErrorStats& calls);
  void observe(std::size_t site, std::size_t sample, const ByCause<CallError>& call);  // beside one of these

  // `work` is called at the end of every request, counted or not, and may call observe(). Null removes it.
  void before_counting(std::function<void()> work) { before_counting_ = std::move(work); }

  // Counts a request and what was observed since the last one; drop_request() discards it instead.
  enum class Measured { no, yes };
  void finish_request(Measured measured);
  void drop_request();

  // The same for requests that were the samples of one batch, each observed by itself. Only those that were answered
  // count, as if they had come one by one.
  void finish_batch(const std::vector<bool>& answered, Measured measured);

  StatsSnapshot snapshot() const;
  void reset();                        // everything to zero; a request that is running counts when it finishes
  void merge(const StatsBook& other);  // matches sites by layer; other's calls come last

 private:
  struct Observation {
    std::size_t site;
    std::size_t sample;
    std::variant<CallError, ErrorStats, ByCause<CallError>> seen;
  };
  std::vector<Observation> take_observations();
  static void add(SiteEntry& site, const Observation& observation);

  std::vector<Observation> pending_;  // only for the model's thread; so is the next
  std::function<void()> before_counting_;

  mutable std::mutex mutex_;
  std::vector<SiteEntry> sites_;  // guarded by mutex_; so is the rest
  std::int64_t requests_ = 0;
  std::int64_t measured_ = 0;
  std::string start_;
};

std::string utc_now();  // ISO 8601, seconds

}  // namespace pi0::quant
