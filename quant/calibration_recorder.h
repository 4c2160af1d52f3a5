// Records statistics of every linear's inputs while the unquantized model runs.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "model/linear.h"
#include "model/matmul_site.h"
#include "quant/channel_statistics.h"

namespace pi0::quant {

struct CalibrationRequest {
  std::vector<double> percentiles;  // from 0 to 100
  std::int64_t num_steps = 10;      // denoise steps of each request
  std::set<model::Component> skip;  // not recorded
  std::int64_t memory_bytes = 0;    // for values that wait until their percentiles are computed
};

// Hooks on a model's linears, which it removes when it is destroyed; on the CPU they do not change a bit of the model's
// results. Percentiles need all values of a site. If those of all sites exceed the memory, the same requests run in
// several passes, each of which completes as many sites as fit, in the sites' order:
//
//   while (!recorder.is_complete()) {
//     for (each request) { run it; recorder.finish_request(); }
//     recorder.finish_pass();
//   }
//
// A site's step is the number of its call in the request; all calls of a site that has one step (quant::steps_of) count
// as that step, so those for several cameras do. On a GPU inputs are copied to the host; a request must then run with
// SampleOptions::velocity or ::trace, for it must not be repeated from a recording.
class CalibrationRecorder {
 public:
  // `sites` must outlive it. Throws std::logic_error if a site has a hook already.
  CalibrationRecorder(model::SiteList& sites, const CalibrationRequest& request);
  ~CalibrationRecorder();
  CalibrationRecorder(const CalibrationRecorder&) = delete;
  CalibrationRecorder& operator=(const CalibrationRecorder&) = delete;

  // Call after each request. Throws std::runtime_error that names the site if an input was not finite, and
  // std::logic_error if a site did not have a call in every step.
  void finish_request();

  // Computes the percentiles of the sites whose values were kept. Throws std::runtime_error that names a site without
  // any input: that of cameras which no request has. `before_site` is called before each site and may throw to stop the
  // work.
  void finish_pass(const std::function<void()>& before_site = [] {});

  bool is_complete() const { return completed() == sites_.size(); }
  std::size_t site_count() const { return sites_.size(); }
  std::size_t completed() const;    // sites
  std::size_t passes_left() const;  // known from the end of the first pass on

  // The statistics of the completed sites, named and shaped as calibration.h says.
  std::map<std::string, at::Tensor> tensors() const;

 private:
  class Hook : public model::LinearHook {
   public:
    Hook(CalibrationRecorder& recorder, std::size_t site) : recorder_(recorder), site_(site) {}
    model::Tensor linear(const model::Tensor& x) override;
    bool observes() const override { return true; }

   private:
    CalibrationRecorder& recorder_;
    const std::size_t site_;
  };
  enum class Values { pending, kept, complete };
  struct Site {
    model::Linear& linear;
    std::unique_ptr<Hook> hook;
    std::vector<ChannelStatistics> steps;
    std::size_t calls = 0;  // of this request
    Values values = Values::pending;
    std::int64_t kept_bytes = 0;
    at::Tensor percentiles = {};  // [S, P, In] when complete
  };

  void observe(Site& site, const model::Tensor& x);
  void begin_pass();
  void give_up_last();
  void complete(Site& site);
  static std::int64_t value_bytes(const Site& site);

  model::SiteList& list_;
  const std::vector<double> percentiles_;
  const std::int64_t memory_bytes_;
  std::vector<Site> sites_;
  std::int64_t kept_bytes_ = 0;
  bool is_first_pass_ = true;
};

}  // namespace pi0::quant
