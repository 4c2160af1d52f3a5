#include "quant/stats_book.h"

#include <algorithm>
#include <ctime>
#include <stdexcept>
#include <utility>

namespace pi0::quant {

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

StatsBook::StatsBook() : start_(utc_now()) {}

std::size_t StatsBook::add_site(const SiteEntry& site) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find_if(sites_, [&](const SiteEntry& known) { return known.layer == site.layer; });
  if (found != sites_.end()) return static_cast<std::size_t>(found - sites_.begin());
  sites_.push_back(site);
  return sites_.size() - 1;
}

void StatsBook::observe(std::size_t site, std::size_t sample, const CallError& call) {
  pending_.push_back({site, sample, call});
}

void StatsBook::observe(std::size_t site, std::size_t sample, const ErrorStats& calls) {
  pending_.push_back({site, sample, calls});
}

void StatsBook::observe(std::size_t site, std::size_t sample, const ByCause<CallError>& call) {
  pending_.push_back({site, sample, call});
}

void StatsBook::add(SiteEntry& site, const Observation& observation) {
  if (const auto* const call = std::get_if<CallError>(&observation.seen)) {
    site.errors.add(*call);
  } else if (const auto* const causes = std::get_if<ByCause<CallError>>(&observation.seen)) {
    site.causes.operands.add(causes->operands);
    site.causes.accumulation.add(causes->accumulation);
    site.causes.output.add(causes->output);
  } else {
    site.errors.merge(std::get<ErrorStats>(observation.seen));
  }
}

std::vector<StatsBook::Observation> StatsBook::take_observations() {
  if (before_counting_) before_counting_();
  return std::exchange(pending_, {});
}

void StatsBook::finish_request(Measured measured) { finish_batch({true}, measured); }

void StatsBook::drop_request() { take_observations(); }

void StatsBook::finish_batch(const std::vector<bool>& answered, Measured measured) {
  std::vector<Observation> seen = take_observations();
  // In the order of samples that come one by one: it decides the last bits of a running mean.
  std::ranges::stable_sort(seen, {}, &Observation::sample);
  const std::lock_guard lock(mutex_);
  for (const Observation& each : seen) {
    if (answered.at(each.sample)) add(sites_[each.site], each);
  }
  for (const bool is_answered : answered) {
    if (!is_answered) continue;
    ++requests_;
    if (measured == Measured::yes) ++measured_;
  }
}

StatsSnapshot StatsBook::snapshot() const {
  const std::lock_guard lock(mutex_);
  return {sites_, requests_, measured_, start_};
}

void StatsBook::reset() {
  const std::lock_guard lock(mutex_);
  for (SiteEntry& site : sites_) {
    site.errors = {};
    site.causes = {};
  }
  requests_ = measured_ = 0;
  start_ = utc_now();
}

void StatsBook::merge(const StatsBook& other) {
  const StatsSnapshot theirs = other.snapshot();
  for (const SiteEntry& site : theirs.sites) {
    SiteEntry empty = site;
    empty.errors = {};
    empty.causes = {};
    const std::size_t index = add_site(empty);
    const std::lock_guard lock(mutex_);
    sites_[index].errors.merge(site.errors);
    sites_[index].causes.operands.merge(site.causes.operands);
    sites_[index].causes.accumulation.merge(site.causes.accumulation);
    sites_[index].causes.output.merge(site.causes.output);
  }
  const std::lock_guard lock(mutex_);
  requests_ += theirs.requests;
  measured_ += theirs.measured;
  start_ = std::min(start_, theirs.start);
}

}  // namespace pi0::quant
