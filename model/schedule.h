// The modulation of the action expert's adaptive norms for each denoise step. It depends on the number of steps and on
// hooks, but not on the observation, so it is computed once and cached.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "model/gemma.h"
#include "model/matmul_site.h"

namespace pi0::model {

// The flow time of each denoise step, from 1 down, without 0. Accumulated in float32 as in pi0_pytorch.py
// sample_actions; 1 + step * dt would differ in the last bits.
std::vector<float> flow_times(std::int64_t num_steps);

struct Schedule {
  std::int64_t num_steps = 0;
  std::int64_t hook_changes = 0;
  bool observed = false;          // hooks have saved what they observed of it
  std::vector<Modulation> steps;  // of batch 1: the same for all samples
};

// Caches the last schedule. Calls must not overlap.
class ScheduleKeeper {
 public:
  // Computes the modulation of one flow time.
  using Modulate = std::function<Modulation(float time)>;

  // `modulation_sites` are those that depend only on the flow time.
  ScheduleKeeper(const SiteList& sites, std::vector<const MatmulSite*> modulation_sites, Modulate modulate);

  // The schedule for a request of `batch` samples; observing hooks count its calls for each of them. Null if every step
  // must compute its own modulation: too many steps to cache, or a hook that must see each call.
  std::shared_ptr<const Schedule> get(std::int64_t num_steps, std::int64_t batch);

  // Whether requests of so many steps share what `site` computed once.
  bool caches(const MatmulSite& site, std::int64_t num_steps) const;

 private:
  bool caches(std::int64_t num_steps) const;

  const SiteList& sites_;
  const std::vector<const MatmulSite*> modulation_sites_;
  const Modulate modulate_;
  std::shared_ptr<const Schedule> kept_;
};

}  // namespace pi0::model
