// What the flow time of each denoise step makes of the action expert's adaptive norms. It depends on the number of
// steps and on hooks, but not on the observation, so it is computed once and kept.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "model/gemma.h"
#include "model/matmul_site.h"

namespace pi0::model {

// Of each denoise step, from 1 to 0, accumulated in float32 as the reference does; 1 + step * dt differs in the last
// bits.
std::vector<float> flow_times(std::int64_t num_steps);

struct Schedule {
  std::int64_t num_steps = 0;
  std::int64_t hook_changes = 0;
  bool observed = false;          // hooks have kept what they observed of it
  std::vector<Modulation> steps;  // batch 1: it is the same for all samples
};

// Keeps the last schedule. Calls must not overlap.
class ScheduleKeeper {
 public:
  // Computes the modulation of one flow time.
  using Modulate = std::function<Modulation(float time)>;

  // `modulation_sites` are those that depend on the flow time alone.
  ScheduleKeeper(const SiteList& sites, std::vector<const MatmulSite*> modulation_sites, Modulate modulate);

  // For a request of `batch` samples, for all of which observing hooks count the schedule's calls. Null when every step
  // must compute its own: many steps, or hooks that observe each call.
  std::shared_ptr<const Schedule> get(std::int64_t num_steps, std::int64_t batch);

 private:
  const SiteList& sites_;
  const std::vector<const MatmulSite*> modulation_sites_;
  const Modulate modulate_;
  std::shared_ptr<const Schedule> kept_;
};

}  // namespace pi0::model
