// Computes linears and attentions with rounded operands and results, and measures the error. A backend makes one
// quantizer for all hooks of an attachment; it holds their rounded parameters and uses the backend's kernels.
// References: pi0-quant quant_linear.py QuantLinear, model_patcher.py QuantAttnContext.
#pragma once

#include <ATen/ATen.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "model/operand_transform.h"
#include "model/vector_site.h"
#include "quant/formats/error_stats.h"
#include "quant/formats/site_formats.h"

namespace pi0::model {

using at::Tensor;

class Attention;
class KvCacheSite;
class Linear;
struct AttentionOperands;
struct LayerKv;

enum class Operand { weight, bias, input, output };

// Receives what a quantizer observes. `site` is the number that Quantizer::add returned; `sample` is the index in the
// batch, or 0 if the whole batch is one observation.
class ErrorSink {
 public:
  virtual ~ErrorSink() = default;
  virtual void observe(std::size_t site, std::size_t sample, const formats::CallError& call) = 0;
  virtual void observe(std::size_t site, std::size_t sample, const formats::ErrorStats& calls) = 0;
  virtual void observe(std::size_t site, std::size_t sample, const formats::ByCause<formats::CallError>& call) = 0;
  virtual void overflowed(std::size_t site, Operand operand) = 0;  // a finite value exceeded the format's largest
};

// Nanoseconds spent on quantization, summed over threads. Only the CPU backend's linears count them.
struct HookClock {
  std::atomic<std::int64_t> rounding = 0;
  std::atomic<std::int64_t> statistics = 0;  // error sums, and the rounding of results in the same pass
};

// Adds its lifetime to one of the clock's sums.
class ClockScope {
 public:
  explicit ClockScope(std::atomic<std::int64_t>& sum) : sum_(sum) {}
  ~ClockScope() { sum_ += std::chrono::nanoseconds(std::chrono::steady_clock::now() - start_).count(); }
  ClockScope(const ClockScope&) = delete;
  ClockScope& operator=(const ClockScope&) = delete;

 private:
  std::atomic<std::int64_t>& sum_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// How the next calls are observed. Change it between requests only.
struct ObservationMode {
  bool measured = true;        // whether calls are compared with exact ones
  bool samples_apart = false;  // whether each sample of a batch is an observation of its own, or the whole batch one
  bool split_errors = false;   // whether measured calls are observed by cause, too; costs a product more
};

class Quantizer {
 public:
  explicit Quantizer(ErrorSink& sink) : sink_(sink) {}
  virtual ~Quantizer() = default;
  Quantizer(const Quantizer&) = delete;
  Quantizer& operator=(const Quantizer&) = delete;

  // Call before the first product. Rounds a linear's weight and bias to the weight's format once and keeps them as
  // codes; a parameter that rounding would not change is shared. Returns the site's number, counted from 0. Throws
  // std::invalid_argument that names the format and the site if the backend does not have the format, or if a method
  // or a static scale lacks `statistics`.
  virtual std::size_t add(const Linear& linear, const formats::SiteFormats& formats,
                          const InputStatistics& statistics) = 0;
  virtual std::size_t add(const Attention& attention, const formats::SiteFormats& formats) = 0;
  virtual std::size_t add(const KvCacheSite& cache, const formats::NumberFormat& format) = 0;
  virtual std::size_t add(const VectorSite& vector, const formats::NumberFormat& format) = 0;

  // Linears that share x [..., In]. Results: [..., Out] each, of x's dtype.
  virtual std::vector<Tensor> linears(std::span<const std::size_t> sites, const Tensor& x) = 0;

  virtual Tensor attention(std::size_t site, const AttentionOperands& operands) = 0;

  virtual LayerKv keep(std::size_t site, const LayerKv& layer) = 0;

  // The operation of rounded inputs, rounded; of the same dtype.
  virtual Tensor apply(std::size_t site, std::span<const Tensor> inputs, VectorOperation operation) = 0;

  // Whether the product of a call with inputs of that dtype is the exact one, so that a measured call needs no second:
  // rounding leaves the operands as they are, and the accumulator is float32.
  virtual bool has_exact_product(std::size_t site, at::ScalarType dtype) const = 0;

  // Drops a linear's exact weight; nothing may be measured afterwards. Returns whether the site has a weight of its
  // own, so that the model's can be freed.
  virtual bool release_exact_weight(std::size_t /*site*/) { return false; }

  // Whether it has ObservationMode::split_errors.
  virtual bool splits_errors() const { return true; }

  // Called once at the end of every request: passes pending observations to the sink.
  virtual void collect() = 0;

  // See SiteHook.
  virtual void keep_observed(std::size_t site) = 0;
  virtual void repeat_observed(std::size_t site, std::int64_t samples) = 0;

  ObservationMode mode = {};
  HookClock clock = {};

 protected:
  ErrorSink& sink_;
};

}  // namespace pi0::model
