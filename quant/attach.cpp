#include "quant/attach.h"

#include <c10/core/InferenceMode.h>
#include <malloc.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "model/backend.h"
#include "quant/calibration.h"

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

const QuantPlan& checked(const QuantPlan& plan, const model::SiteList& sites) {
  if (plan.matmuls.size() == sites.all().size() && plan.kv_caches.size() == sites.kv_caches().size() &&
      plan.vectors.size() == sites.vectors().size()) {
    return plan;
  }
  throw std::logic_error("attach: the plan is for another model");
}

SiteEntry entry_of(const model::MatmulSite& site) {
  return {site.path,
          std::string(model::name_of(site.component)),
          std::string(model::name_of(site.kind)),
          site.in_features,
          site.out_features,
          {}};
}

}  // namespace

void Attachment::Observer::observe(std::size_t site, std::size_t sample, const CallError& call) {
  if (book_ != nullptr) book_->observe(sites_[site].entry, sample, call);
}

void Attachment::Observer::observe(std::size_t site, std::size_t sample, const ErrorStats& calls) {
  if (book_ != nullptr) book_->observe(sites_[site].entry, sample, calls);
}

void Attachment::Observer::observe(std::size_t site, std::size_t sample, const ByCause<CallError>& call) {
  if (book_ != nullptr) book_->observe(sites_[site].entry, sample, call);
}

void Attachment::Observer::overflowed(std::size_t number, model::Operand operand) {
  Site& site = sites_[number];
  if (std::exchange(site.warned, true) || !warn_) return;
  const bool is_static = site.has_static_input && operand == model::Operand::input;
  warn_(site.path + (is_static
                         ? ": an input lies beyond the calibrated range and saturates"
                         : ": a value of its " + std::string(name_of(operand)) + " exceeds the format's largest"));
}

Attachment::Attachment(model::SiteList& sites, const QuantPlan& plan, StatsBook* book,
                       std::function<void(const std::string&)> warn, std::shared_ptr<const Calibration> calibration)
    : sites_(sites),
      book_(book),
      observer_(book, std::move(warn)),
      weight_size_(quant::weight_size(sites, checked(plan, sites))),
      calibration_(std::move(calibration)),
      quantizer_(sites.backend().quantizer(observer_, [&sites] { sites.hooks_changed(); })) {
  const c10::InferenceMode inference;
  for (const model::MatmulSite& site : sites.of_all_kinds()) {
    if (site.any_hook() != nullptr) throw std::logic_error("attach: " + site.path + " has a hook already");
  }
  measure(true);
  std::vector<std::function<void()>> set_hooks;  // called when all hooks are made: a failure leaves no site with one
  for (std::size_t i = 0; i < plan.matmuls.size(); ++i) {
    if (plan.matmuls[i]) set_hooks.push_back(add(sites.all()[i], *plan.matmuls[i]));
  }
  for (std::size_t i = 0; i < plan.kv_caches.size(); ++i) {
    if (!plan.kv_caches[i]) continue;
    auto& cache = dynamic_cast<model::KvCacheSite&>(sites.kv_caches()[i].get());
    set_hooks.push_back(add_hook<KvCacheHook>(cache, *plan.kv_caches[i]));
  }
  for (std::size_t i = 0; i < plan.vectors.size(); ++i) {
    if (!plan.vectors[i]) continue;
    auto& vector = dynamic_cast<model::VectorSite&>(sites.vectors()[i].get());
    set_hooks.push_back(add_hook<VectorHook>(vector, *plan.vectors[i]));
  }
  for (const auto& set_hook : set_hooks) set_hook();
  if (book_ != nullptr) book_->before_counting([this] { quantizer_->collect(); });
  sites_.hooks_changed();
  // Gives back the memory of the float32 slices that weights were rounded in; a small model soon needs it again.
  constexpr std::int64_t large = std::int64_t{32} << 20;
  if (weight_size_.bytes > large) ::malloc_trim(0);
}

// With an entry in the book for what the hook observes.
template <class Hook>
std::function<void()> Attachment::add_hook(auto& site, const auto&... formats) {
  observer_.add(site.path, book_ != nullptr ? book_->add_site(entry_of(site)) : 0);
  auto hook = std::make_unique<Hook>(site, *quantizer_, formats...);
  hooked_.push_back(&site);
  return [&site, set = hooks_.emplace_back(std::move(hook)).get()] { site.set_hook(static_cast<Hook*>(set)); };
}

model::InputStatistics Attachment::statistics_of(const model::Linear& linear, const SiteFormats& formats) const {
  model::InputStatistics statistics;
  if (calibration_ == nullptr) return statistics;
  if (formats.needs_calibration()) statistics.absmax = calibration_->absmax(linear.path);
  if (formats.methods.clip) statistics.clip = calibration_->percentile(linear.path, *formats.methods.clip);
  return statistics;
}

std::function<void()> Attachment::add(model::MatmulSite& site, const SiteFormats& formats) {
  check(formats);
  if (auto* const linear = dynamic_cast<model::Linear*>(&site)) {
    auto set_hook = add_hook<LinearHook>(*linear, formats, statistics_of(*linear, formats));
    if (formats.input.is_static) observer_.has_static_input();
    return set_hook;
  }
  if (auto* const attention = dynamic_cast<model::Attention*>(&site)) {
    return add_hook<AttentionHook>(*attention, formats);
  }
  if (book_ != nullptr) book_->add_site(entry_of(site));  // an unused head
  return [] {};
}

void Attachment::split_errors() {
  if (!quantizer_->splits_errors()) {
    throw std::invalid_argument("errors by cause are not available on a GPU; run with --device cpu");
  }
  quantizer_->mode.split_errors = true;
  sites_.hooks_changed();
}

Attachment::~Attachment() {
  for (model::MatmulSite* site : hooked_) site->remove_hook();
  sites_.hooks_changed();
  if (book_ != nullptr) book_->before_counting({});
  observer_.leave_book();
  quantizer_->collect();  // for its warnings of overflows
}

void Attachment::measure(bool measured) { quantizer_->mode.measured = book_ != nullptr && measured; }

void Attachment::release_weights() {
  if (book_ != nullptr) throw std::logic_error("release_weights: statistics need the exact weights");
  for (std::size_t number = 0; number < hooked_.size(); ++number) {
    auto* const linear = dynamic_cast<model::Linear*>(hooked_[number]);
    if (linear != nullptr && quantizer_->release_exact_weight(number)) linear->release_weight();
  }
  ::malloc_trim(0);
}

void Attachment::observe_samples_apart(bool apart) {
  if (quantizer_->mode.samples_apart != apart) sites_.hooks_changed();
  quantizer_->mode.samples_apart = apart;
}

std::unique_ptr<Attachment> attach(model::SiteList& sites, const PlanRequest& request, StatsBook* book,
                                   std::function<void(const std::string&)> warn) {
  if (request.calibration) request.calibration->check_weights(sites);
  return std::make_unique<Attachment>(sites, make_plan(sites, request), book, std::move(warn), request.calibration);
}

}  // namespace pi0::quant
