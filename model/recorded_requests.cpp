#include "model/recorded_requests.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "model/schedule.h"

namespace pi0::model {

RecordedRequests::RecordedRequests(std::shared_ptr<WorkRecorder> recorder, const SiteList& sites, at::Device device,
                                   MakeStages stages)
    : recorder_(std::move(recorder)), sites_(sites), device_(device), stages_(std::move(stages)) {}

RecordedRequests::Kind RecordedRequests::kind_of(const Pass& pass) const {
  const bool observed = std::ranges::any_of(sites_.of_all_kinds(), &MatmulSite::is_observed);
  Kind kind = {sites_.hook_changes(),
               observed,
               pass.in.continuation.is_defined(),
               pass.num_steps,
               pass.noise.size(0),
               pass.prompt_positions,
               pass.in.tokens.size(1),
               static_cast<std::int64_t>(pass.in.images.size())};
  kind.insert(kind.end(), pass.cameras.begin(), pass.cameras.end());
  for (const Tensor& image : pass.in.images) kind.push_back(is_pixels(image) ? 1 : 0);
  return kind;
}

Tensor RecordedRequests::run_plainly(Pass& pass, StageSeconds* seconds) const {
  move_to(pass, device_);
  run(stages_(pass, seconds), device_, seconds);
  return pass.actions;
}

Tensor RecordedRequests::sample(Pass pass, StageSeconds* seconds) {
  constexpr std::size_t most_recordings = 8;  // each holds a request's tensors
  const Kind kind = kind_of(pass);
  recordings_.remove_if([&](const Recording& known) { return known.kind[0] != kind[0]; });
  const auto known = std::ranges::find(recordings_, kind, &Recording::kind);
  if (known == recordings_.end()) {
    const Tensor actions = run_plainly(pass, seconds);
    recordings_.push_front({kind});
    if (recordings_.size() > most_recordings) recordings_.pop_back();
    return actions;
  }
  recordings_.splice(recordings_.begin(), recordings_, known);
  Recording& recording = recordings_.front();
  if (recording.stages.empty()) {
    if (!record(recording, pass)) {
      recordings_.clear();
      return run_plainly(pass, seconds);
    }
  } else {
    const std::vector<Tensor*> to = inputs_of(recording.pass), from = inputs_of(pass);
    for (std::size_t i = 0; i < to.size(); ++i) to[i]->copy_(*from[i], /*non_blocking=*/true);
  }
  return repeat(recording, seconds);
}

Tensor RecordedRequests::repeat(const Recording& recording, StageSeconds* seconds) const {
  Stopwatch watch(device_);
  run(recording.stages, device_, seconds);
  if (seconds != nullptr) {
    const double denoise = watch.lap() - seconds->vision - seconds->prefix;
    const std::int64_t steps = recording.pass.num_steps;
    seconds->denoise.assign(flow_times(steps).size(), denoise / static_cast<double>(steps));
  }
  std::size_t index = 0;
  for (const MatmulSite& site : sites_.all()) site.flop += recording.flop[index++];
  return recording.pass.actions.clone();
}

// A recording needs memory of its own. A request can still run without, so a failure here is not the request's.
bool RecordedRequests::record(Recording& recording, const Pass& pass) const {
  recording.pass = pass;
  for (Tensor* input : inputs_of(recording.pass)) {
    *input = input->to(device_, /*non_blocking=*/false, /*copy=*/true);
  }
  std::vector<std::int64_t> before;
  for (const MatmulSite& site : sites_.all()) before.push_back(site.flop);
  bool is_recorded = true;
  try {
    recording.stages = recorder_->record(stages_(recording.pass, nullptr));
  } catch (const std::exception&) {
    is_recorded = false;
  }
  recording.flop.clear();
  for (const MatmulSite& site : sites_.all()) {
    const std::int64_t known = before[recording.flop.size()];
    recording.flop.push_back(std::exchange(site.flop, known) - known);
  }
  return is_recorded;
}

}  // namespace pi0::model
