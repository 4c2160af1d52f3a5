// Requests whose stages a device repeats without the host. Requests of one kind do the same to tensors of the same
// shapes. The first of a kind runs as any, and sets up what libraries set up on their first call; the second is
// recorded.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <vector>

#include "model/matmul_site.h"
#include "model/pass.h"

namespace pi0::model {

// Calls must not overlap.
class RecordedRequests {
 public:
  // The stages of a pass, which they refer to.
  using MakeStages = std::function<Stages(Pass& pass, StageSeconds* seconds)>;

  RecordedRequests(std::shared_ptr<Recorder> recorder, const SiteList& sites, at::Device device, MakeStages stages);

  // Runs the stages of a pass, whose inputs may be on any device. Returns the actions, [B, A, N] on the device.
  Tensor sample(Pass pass, StageSeconds* seconds);

 private:
  using Kind = std::vector<std::int64_t>;
  struct Recording {
    Kind kind;
    Pass pass = {};                       // the tensors that the stages read and write
    Stages stages = {};                   // none yet: such a request was seen once
    std::vector<std::int64_t> flop = {};  // that they count at each site
  };
  Kind kind_of(const Pass& pass) const;
  Tensor run_plainly(Pass& pass, StageSeconds* seconds) const;
  bool record(Recording& recording, const Pass& pass) const;  // false: it failed
  Tensor repeat(const Recording& recording, StageSeconds* seconds) const;

  const std::shared_ptr<Recorder> recorder_;
  const SiteList& sites_;
  const at::Device device_;
  const MakeStages stages_;
  std::list<Recording> recordings_;  // the last used first
};

}  // namespace pi0::model
