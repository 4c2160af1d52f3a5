// Records the device work of a request's stages and replays it for later requests of the same kind: the same operations
// on tensors of the same shapes. The first request of a kind runs without recording, so that libraries do their
// one-time set-up; the second is recorded.
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
  // Makes the stages of `pass`, to which they refer.
  using MakeStages = std::function<Stages(Pass& pass, StageSeconds* seconds)>;

  RecordedRequests(std::shared_ptr<WorkRecorder> recorder, const SiteList& sites, at::Device device, MakeStages stages);

  // Runs the stages of a pass, whose inputs may be on any device. Returns the actions, [B, A, N] on the device.
  Tensor sample(Pass pass, StageSeconds* seconds);

 private:
  using Kind = std::vector<std::int64_t>;
  struct Recording {
    Kind kind;
    Pass pass = {};                       // the tensors that the stages read and write
    Stages stages = {};                   // empty until the second request of the kind
    std::vector<std::int64_t> flop = {};  // of the stages, at each site
  };
  Kind kind_of(const Pass& pass) const;
  Tensor run_plainly(Pass& pass, StageSeconds* seconds) const;
  bool record(Recording& recording, const Pass& pass) const;  // false: it failed
  Tensor repeat(const Recording& recording, StageSeconds* seconds) const;

  const std::shared_ptr<WorkRecorder> recorder_;
  const SiteList& sites_;
  const at::Device device_;
  const MakeStages stages_;
  std::list<Recording> recordings_;  // most recently used first
};

}  // namespace pi0::model
