// Sets hooks on a loaded model's sites and removes them again. The model's weights are not changed, so one loaded model
// can be attached to any number of times.
// Reference: pi0-quant model_patcher.py patch_model, unpatch_model.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/matmul_site.h"
#include "quant/quant_hook.h"
#include "quant/quant_plan.h"
#include "quant/stats_book.h"
#include "quant/weight_size.h"

namespace pi0::quant {

// The hooks on one model, which it removes when it is destroyed. Do not make or destroy one during an inference.
class Attachment {
 public:
  // Sets a hook on every site that the plan gives formats, with an entry in `book` unless that is null. An UnusedHead
  // gets an entry only. `sites` and `book` must outlive the attachment. Throws std::logic_error if a site has a hook
  // already, or if the plan is for another model. `warn` is called once per layer in which a value overflowed.
  // `calibration` is what smoothing, clipping and static scales take; null: none. Throws what that throws for a site it
  // lacks, and std::invalid_argument for formats in roles that they do not have (formats::check).
  Attachment(model::SiteList& sites, const QuantPlan& plan, StatsBook* book,
             std::function<void(const std::string&)> warn = {}, std::shared_ptr<const Calibration> calibration = {});
  ~Attachment();
  Attachment(const Attachment&) = delete;
  Attachment& operator=(const Attachment&) = delete;

  std::size_t site_count() const { return hooked_.size(); }  // sites with a hook

  // Whether the next requests are measured; a request that is not costs one matmul per site instead of two.
  void measure(bool measured);

  // Observes the next measured requests by cause, too. Throws std::invalid_argument on a GPU, which cannot.
  void split_errors();

  // Frees the weights of linears that hooks keep in another form, for good: afterwards the model computes only with
  // these hooks. Throws std::logic_error if there is a book, since measuring needs them.
  void release_weights();

  // Whether each sample of the next batches is an observation of its own, as if requests had come one by one. Otherwise
  // a whole batch is one, as in pi0-quant.
  void observe_samples_apart(bool apart);

  const model::HookClock& clock() const { return quantizer_->clock; }

  const WeightSize& weight_size() const { return weight_size_; }  // of the model under the plan

 private:
  // Passes what the quantizer observes to the book.
  class Observer : public model::ErrorSink {
   public:
    Observer(StatsBook* book, std::function<void(const std::string&)> warn) : book_(book), warn_(std::move(warn)) {}
    // In the order of the quantizer's numbers.
    void add(const std::string& path, std::size_t entry) { sites_.push_back({path, entry}); }
    void has_static_input() { sites_.back().has_static_input = true; }
    void observe(std::size_t site, std::size_t sample, const CallError& call) override;
    void observe(std::size_t site, std::size_t sample, const ErrorStats& calls) override;
    void observe(std::size_t site, std::size_t sample, const ByCause<CallError>& call) override;
    void overflowed(std::size_t site, model::Operand operand) override;
    void leave_book() { book_ = nullptr; }  // what is observed from now on is forgotten

   private:
    struct Site {
      std::string path;
      std::size_t entry;  // in the book
      bool warned = false;
      bool has_static_input = false;
    };
    StatsBook* book_;
    const std::function<void(const std::string&)> warn_;
    std::vector<Site> sites_;
  };

  // Makes a site's hook, and returns what sets it.
  std::function<void()> add(model::MatmulSite& site, const SiteFormats& formats);

  template <class Hook>
  std::function<void()> add_hook(auto& site, const auto&... formats);

  model::InputStatistics statistics_of(const model::Linear& linear, const SiteFormats& formats) const;

  model::SiteList& sites_;
  StatsBook* const book_;
  Observer observer_;
  const WeightSize weight_size_;
  const std::shared_ptr<const Calibration> calibration_;
  std::unique_ptr<model::Quantizer> quantizer_;
  std::vector<std::unique_ptr<model::SiteHook>> hooks_;
  std::vector<model::MatmulSite*> hooked_;  // by quantizer number
};

// Makes a plan of `request` for the sites, and an attachment of the plan.
std::unique_ptr<Attachment> attach(model::SiteList& sites, const PlanRequest& request, StatsBook* book,
                                   std::function<void(const std::string&)> warn = {});

}  // namespace pi0::quant
