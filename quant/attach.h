// Puts hooks on a loaded model's sites and takes them off again. The model's weights are not touched,
// so that one loaded model can be attached to any number of times.
// Reference: pi0-quant model_patcher.py patch_model, unpatch_model.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/matmul_site.h"
#include "quant/device_hook.h"
#include "quant/fast_hook.h"
#include "quant/quant_hook.h"
#include "quant/quant_plan.h"
#include "quant/stats_book.h"

namespace pi0::quant {

// Hooks on one model; detaches when it goes. Not to be made or destroyed during an inference.
class Attachment {
 public:
  // A hook for every site the plan gives formats, with an entry in `book` unless that is null. `sites`
  // and `book` must outlive the attachment. Throws std::logic_error when a site has a hook already. A model that
  // is fast without a CPU's kernels gets hooks of `device`, where there are such.
  Attachment(model::SiteList& sites, const QuantPlan& plan, StatsBook* book,
             std::function<void(const std::string&)> warn = {}, const DeviceKernels* device = cuda_kernels());
  ~Attachment();
  Attachment(const Attachment&) = delete;
  Attachment& operator=(const Attachment&) = delete;

  std::size_t site_count() const { return hooks_.size(); }

  // Whether requests from now on are observed; an unobserved one costs one matmul per site, not two.
  void measure(bool measured) { context_.measure = measured; }

  // Whether from now on each sample of a batch is an observation of its own, as if requests had come
  // one by one; otherwise a whole batch is one, as in pi0-quant.
  void observe_samples_apart(bool apart);

  const HookClock& clock() const { return clock_; }

 private:
  model::SiteList& list_;
  HookClock clock_;
  HookContext context_;
  std::vector<model::MatmulSite*> sites_;  // those with our hooks
  PackedInputs inputs_;
  std::unique_ptr<DeviceErrors> device_errors_;  // null without hooks of a device
  std::vector<std::unique_ptr<model::MatmulHook>> hooks_;
};

// Makes an attachment for `request` on `sites`; what callers outside the server use.
std::unique_ptr<Attachment> attach(model::SiteList& sites, const PlanRequest& request, StatsBook* book,
                                   std::function<void(const std::string&)> warn = {});

}  // namespace pi0::quant
