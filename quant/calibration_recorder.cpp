#include "quant/calibration_recorder.h"

#include <malloc.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "model/backend.h"
#include "quant/calibration.h"

namespace pi0::quant {

using model::Tensor;

Tensor CalibrationRecorder::Hook::linear(const Tensor& x) {
  Site& site = recorder_.sites_[site_];
  recorder_.observe(site, x);
  return site.linear.backend.linear(site.linear, x);
}

CalibrationRecorder::CalibrationRecorder(model::SiteList& sites, const CalibrationRequest& request)
    : list_(sites), percentiles_(request.percentiles), memory_bytes_(request.memory_bytes) {
  for (model::MatmulSite& site : sites.all()) {
    auto* const linear = dynamic_cast<model::Linear*>(&site);
    if (linear == nullptr || request.skip.contains(site.component)) continue;
    if (linear->hook() != nullptr) throw std::logic_error("calibration: " + site.path + " has a hook already");
    const auto steps = static_cast<std::size_t>(steps_of(site, request.num_steps));
    sites_.push_back({*linear, std::make_unique<Hook>(*this, sites_.size()),
                      std::vector<ChannelStatistics>(steps, ChannelStatistics(site.in_features))});
  }
  for (const Site& site : sites_) site.linear.set_hook(site.hook.get());
  list_.hooks_changed();
  begin_pass();
}

CalibrationRecorder::~CalibrationRecorder() {
  for (const Site& site : sites_) site.linear.remove_hook();
  list_.hooks_changed();
}

void CalibrationRecorder::observe(Site& site, const Tensor& x) {
  const std::size_t step = site.steps.size() == 1 ? 0 : site.calls;
  ++site.calls;
  if (step >= site.steps.size()) return;  // finish_request() refuses
  const Tensor rows = x.cpu().reshape({-1, x.size(-1)}).contiguous();
  if (is_first_pass_) site.steps[step].count(rows);
  if (site.values != Values::kept) return;
  const auto bytes = static_cast<std::int64_t>(rows.nbytes());
  site.kept_bytes += bytes;
  kept_bytes_ += bytes;
  while (kept_bytes_ > memory_bytes_ && site.values == Values::kept) give_up_last();
  if (site.values == Values::kept) site.steps[step].keep(rows);
}

// The last site whose values are kept waits for another pass.
void CalibrationRecorder::give_up_last() {
  const auto is_kept = [](const Site& site) { return site.values == Values::kept; };
  if (std::ranges::count_if(sites_, is_kept) == 1) {
    throw std::runtime_error(c10::str("the inputs of '", std::ranges::find_if(sites_, is_kept)->linear.path,
                                      "' alone take more than the ", memory_bytes_ >> 20,
                                      " MiB for values; allow more memory or fewer observations"));
  }
  Site& last = *std::find_if(sites_.rbegin(), sites_.rend(), is_kept);
  for (ChannelStatistics& step : last.steps) step.drop_values();
  last.values = Values::pending;
  kept_bytes_ -= std::exchange(last.kept_bytes, 0);
}

void CalibrationRecorder::finish_request() {
  for (Site& site : sites_) {
    const std::size_t calls = std::exchange(site.calls, 0);
    if (site.steps.size() > 1 && calls != site.steps.size()) {
      throw std::logic_error(c10::str("calibration: ", site.linear.path, " was called ", calls, " times in ",
                                      site.steps.size(), " steps"));
    }
    if (is_first_pass_ && !std::ranges::all_of(site.steps, &ChannelStatistics::is_finite)) {
      throw std::runtime_error("an input of '" + site.linear.path + "' is not finite");
    }
  }
}

void CalibrationRecorder::begin_pass() {
  for (Site& site : sites_) {
    if (site.values == Values::pending) site.values = Values::kept;
  }
}

void CalibrationRecorder::complete(Site& site) {
  std::vector<Tensor> by_step;
  for (ChannelStatistics& step : site.steps) {
    if (step.rows() == 0) throw std::runtime_error("'" + site.linear.path + "' had no input in any request");
    by_step.push_back(step.percentiles(percentiles_));
    step.drop_values();
  }
  site.percentiles = at::stack(by_step);
  site.values = Values::complete;
  kept_bytes_ -= std::exchange(site.kept_bytes, 0);
}

void CalibrationRecorder::finish_pass(const std::function<void()>& before_site) {
  for (Site& site : sites_) {
    if (site.values != Values::kept) continue;
    before_site();
    complete(site);
  }
  ::malloc_trim(0);  // the values were many small blocks
  is_first_pass_ = false;
  begin_pass();
}

std::size_t CalibrationRecorder::completed() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(sites_, [](const Site& site) { return site.values == Values::complete; }));
}

std::int64_t CalibrationRecorder::value_bytes(const Site& site) {
  std::int64_t bytes = 0;
  for (const ChannelStatistics& step : site.steps) bytes += step.value_bytes();
  return bytes;
}

std::size_t CalibrationRecorder::passes_left() const {
  std::size_t passes = 0;
  std::int64_t in_pass = memory_bytes_;  // none begun
  for (const Site& site : sites_) {
    if (site.values == Values::complete) continue;
    const std::int64_t bytes = value_bytes(site);
    if (in_pass + bytes > memory_bytes_) {
      ++passes;
      in_pass = 0;
    }
    in_pass += bytes;
  }
  return passes;
}

std::map<std::string, Tensor> CalibrationRecorder::tensors() const {
  std::map<std::string, Tensor> tensors;
  for (const Site& site : sites_) {
    if (site.values != Values::complete) continue;
    std::vector<Tensor> absmax, mean_square;
    for (const ChannelStatistics& step : site.steps) {
      absmax.push_back(step.absmax());
      mean_square.push_back(step.mean_square());
    }
    tensors[site.linear.path + ".absmax"] = at::stack(absmax);
    tensors[site.linear.path + ".mean_square"] = at::stack(mean_square);
    tensors[site.linear.path + ".percentiles"] = site.percentiles;
  }
  return tensors;
}

}  // namespace pi0::quant
