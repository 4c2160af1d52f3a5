#include "quant/attach.h"

#include <c10/core/InferenceMode.h>
#include <malloc.h>

#include <stdexcept>
#include <utility>

namespace pi0::quant {

Attachment::Attachment(model::SiteList& sites, const QuantPlan& plan, StatsBook* book,
                       std::function<void(const std::string&)> warn, const DeviceKernels* device)
    : list_(sites), context_{book, true, false, std::move(warn), &clock_} {
  const c10::InferenceMode inference;
  if (plan.size() != sites.all().size()) {
    throw std::logic_error("attach: the plan is for another model");
  }
  for (const model::MatmulSite& site : sites.all()) {
    if (site.hook != nullptr) throw std::logic_error("attach: " + site.path + " has a hook already");
  }
  const model::Execution& execution = sites.execution();
  if (execution.kernels == model::Kernels::fast && execution.gemm == nullptr && device != nullptr) {
    device_errors_ = std::make_unique<DeviceErrors>(execution.device, [&sites] { sites.hooks_changed(); });
  }
  std::size_t index = 0;
  for (model::MatmulSite& site : sites.all()) {
    const std::optional<FormatPair>& formats = plan[index++];
    if (!formats) continue;
    std::size_t entry = 0;
    if (book != nullptr) {
      entry = book->add_site({site.path,
                              std::string(name_of(site.component)),
                              std::string(name_of(site.kind)),
                              site.in_features,
                              site.out_features,
                              {}});
    }
    if (site.gemm != nullptr && site.kind == model::SiteKind::linear) {
      hooks_.push_back(
          std::make_unique<FastLinearHook>(site, *formats, context_, entry, rounding_kernels(site.gemm->set), inputs_));
    } else if (device_errors_) {
      hooks_.push_back(std::make_unique<DeviceHook>(site, *formats, context_, entry, *device, *device_errors_));
    } else {
      hooks_.push_back(std::make_unique<QuantHook>(site, *formats, context_, entry));
    }
    sites_.push_back(&site);
  }
  for (std::size_t i = 0; i < hooks_.size(); ++i) sites_[i]->hook = hooks_[i].get();
  if (device_errors_ && book != nullptr) {
    book->gather_from([errors = device_errors_.get()] { return errors->collect(); });
  }
  list_.hooks_changed();
  ::malloc_trim(0);  // rounding in float32 slices leaves holes between the codes
}

Attachment::~Attachment() {
  for (model::MatmulSite* site : sites_) site->hook = nullptr;
  list_.hooks_changed();
  if (!device_errors_) return;
  if (context_.book != nullptr) context_.book->gather_from({});
  device_errors_->collect();  // for its warnings
}

void Attachment::observe_samples_apart(bool apart) {
  if (context_.samples_apart != apart) list_.hooks_changed();
  context_.samples_apart = apart;
}

std::unique_ptr<Attachment> attach(model::SiteList& sites, const PlanRequest& request, StatsBook* book,
                                   std::function<void(const std::string&)> warn) {
  return std::make_unique<Attachment>(sites, make_plan(sites, request), book, std::move(warn));
}

}  // namespace pi0::quant
