#include "model/schedule.h"

#include <algorithm>
#include <utility>

namespace pi0::model {

std::vector<float> flow_times(std::int64_t num_steps) {
  const auto dt = static_cast<float>(-1.0 / static_cast<double>(num_steps));
  std::vector<float> times;
  for (float time = 1.0F; time >= -dt / 2; time += dt) times.push_back(time);
  return times;
}

ScheduleKeeper::ScheduleKeeper(const SiteList& sites, std::vector<const MatmulSite*> modulation_sites,
                               Modulate modulate)
    : sites_(sites), modulation_sites_(std::move(modulation_sites)), modulate_(std::move(modulate)) {}

bool ScheduleKeeper::caches(std::int64_t num_steps) const {
  constexpr std::int64_t most_steps = 100;  // half a megabyte each
  return num_steps <= most_steps && std::ranges::none_of(modulation_sites_, &MatmulSite::needs_each_call);
}

bool ScheduleKeeper::caches(const MatmulSite& site, std::int64_t num_steps) const {
  return caches(num_steps) && std::ranges::find(modulation_sites_, &site) != modulation_sites_.end();
}

std::shared_ptr<const Schedule> ScheduleKeeper::get(std::int64_t num_steps, std::int64_t batch) {
  if (!caches(num_steps)) return nullptr;
  std::vector<SiteHook*> observers;
  for (const MatmulSite* site : modulation_sites_) {
    if (site->is_observed()) observers.push_back(site->any_hook());
  }
  const bool observed = !observers.empty();
  if (kept_ && kept_->num_steps == num_steps && kept_->hook_changes == sites_.hook_changes() &&
      (kept_->observed || !observed)) {
    for (SiteHook* hook : observers) hook->repeat_observed(batch);
    return kept_;
  }
  kept_ = nullptr;  // what hooks save from now on belongs to the new one
  for (SiteHook* hook : observers) {
    hook->keep_observed();
    hook->repeat_observed(batch);  // for the samples but the first, which is observed now
  }
  Schedule made{num_steps, sites_.hook_changes(), observed, {}};
  for (const float time : flow_times(num_steps)) made.steps.push_back(modulate_(time));
  kept_ = std::make_shared<const Schedule>(std::move(made));
  return kept_;
}

}  // namespace pi0::model
