#include "quant/attach.h"

#include <c10/core/InferenceMode.h>
#include <malloc.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "model/backend.h"

namespace pi0::quant {
namespace {

std::string_view name_of(model::Operand operand) {
  switch (operand) {
    case model::Operand::weight:
      return "weight";
    case model::Operand::bias:
      return "bias";
    case model::Operand::input:
      return "input";
    case model::Operand::output:
      break;
  }
  return "output";
}

}  // namespace

void Attachment::Observer::observe(std::size_t site, std::size_t sample, const CallError& call) {
  if (book_ != nullptr) book_->observe(sites_[site].entry, sample, call);
}

void Attachment::Observer::observe(std::size_t site, std::size_t sample, const ErrorStats& calls) {
  if (book_ != nullptr) book_->observe(sites_[site].entry, sample, calls);
}

void Attachment::Observer::overflowed(std::size_t number, model::Operand operand) {
  Site& site = sites_[number];
  if (std::exchange(site.warned, true) || !warn_) return;
  warn_(site.path + ": a value of its " + std::string(name_of(operand)) + " exceeds the format's largest");
}

Attachment::Attachment(model::SiteList& sites, const QuantPlan& plan, StatsBook* book,
                       std::function<void(const std::string&)> warn)
    : sites_(sites),
      book_(book),
      observer_(book, std::move(warn)),
      quantizer_(sites.backend().quantizer(observer_, [&sites] { sites.hooks_changed(); })) {
  const c10::InferenceMode inference;
  if (plan.size() != sites.all().size()) throw std::logic_error("attach: the plan is for another model");
  for (const model::MatmulSite& site : sites.all()) {
    if (site.any_hook() != nullptr) throw std::logic_error("attach: " + site.path + " has a hook already");
  }
  measure(true);
  std::vector<std::function<void()>> set_hooks;  // called when all hooks are made: a failure leaves no site with one
  for (std::size_t i = 0; i < plan.size(); ++i) {
    if (plan[i]) set_hooks.push_back(add(sites.all()[i], *plan[i]));
  }
  for (const auto& set_hook : set_hooks) set_hook();
  if (book_ != nullptr) book_->before_counting([this] { quantizer_->collect(); });
  sites_.hooks_changed();
  ::malloc_trim(0);  // gives back the memory of the float32 slices that weights were rounded in
}

std::function<void()> Attachment::add(model::MatmulSite& site, FormatPair formats) {
  std::size_t entry = 0;
  if (book_ != nullptr) {
    entry = book_->add_site({site.path,
                             std::string(model::name_of(site.component)),
                             std::string(model::name_of(site.kind)),
                             site.in_features,
                             site.out_features,
                             {}});
  }
  const auto make_hook = [&]<class Hook>(auto& module) -> std::function<void()> {
    observer_.add(site.path, entry);
    auto hook = std::make_unique<Hook>(module, *quantizer_, formats);
    hooked_.push_back(&site);
    return [&module, set = hooks_.emplace_back(std::move(hook)).get()] { module.set_hook(static_cast<Hook*>(set)); };
  };
  if (auto* const linear = dynamic_cast<model::Linear*>(&site)) return make_hook.operator()<LinearHook>(*linear);
  if (auto* const attention = dynamic_cast<model::Attention*>(&site)) {
    return make_hook.operator()<AttentionHook>(*attention);
  }
  return [] {};  // an unused head
}

Attachment::~Attachment() {
  for (model::MatmulSite* site : hooked_) site->remove_hook();
  sites_.hooks_changed();
  if (book_ != nullptr) book_->before_counting({});
  observer_.leave_book();
  quantizer_->collect();  // for its warnings of overflows
}

void Attachment::measure(bool measured) { quantizer_->mode.measured = book_ != nullptr && measured; }

void Attachment::observe_samples_apart(bool apart) {
  if (quantizer_->mode.samples_apart != apart) sites_.hooks_changed();
  quantizer_->mode.samples_apart = apart;
}

std::unique_ptr<Attachment> attach(model::SiteList& sites, const PlanRequest& request, StatsBook* book,
                                   std::function<void(const std::string&)> warn) {
  return std::make_unique<Attachment>(sites, make_plan(sites, request), book, std::move(warn));
}

}  // namespace pi0::quant
