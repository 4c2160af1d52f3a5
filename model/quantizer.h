// Linears and attentions with rounded operands and results, and what the rounding costs. A backend makes one for all
// hooks of an attachment: it holds their rounded parameters, and computes their products the backend's way.
// References: pi0-quant quant_linear.py QuantLinear, model_patcher.py QuantAttnContext.
#pragma once

#include <ATen/ATen.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quant/formats/error_stats.h"
#include "quant/formats/format.h"

namespace pi0::model {

using at::Tensor;

class Attention;
class Linear;
struct AttentionOperands;

enum class Operand { weight, bias, input, output };

// Receives what a quantizer observes. `site` is the number that Quantizer::add returned; `sample` counts along the
// batch, and is 0 where a batch is one observation.
class ErrorSink {
 public:
  virtual ~ErrorSink() = default;
  virtual void observe(std::size_t site, std::size_t sample, const formats::CallError& call) = 0;
  virtual void observe(std::size_t site, std::size_t sample, const formats::ErrorStats& calls) = 0;
  virtual void overflowed(std::size_t site, Operand operand) = 0;  // a finite value exceeded the format's largest
};

// Nanoseconds that threads spent on quantization, summed over threads; a CPU's fast kernels count them.
struct HookClock {
  std::atomic<std::int64_t> rounding = 0;
  std::atomic<std::int64_t> statistics = 0;  // error sums, with the rounding of results in the same pass
};

// Adds the time from its construction to its end to one of the clock's sums.
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

// How the next calls are observed. Changed between requests only.
struct ObservationMode {
  bool measured = true;        // whether calls are compared with exact ones
  bool samples_apart = false;  // whether each sample of a batch is an observation, or the whole batch
};

class Quantizer {
 public:
  explicit Quantizer(ErrorSink& sink) : sink_(sink) {}
  virtual ~Quantizer() = default;
  Quantizer(const Quantizer&) = delete;
  Quantizer& operator=(const Quantizer&) = delete;

  // Before the first call. Rounds a linear's weight and bias to the input format once and keeps them as codes; a
  // parameter that rounding would not change is shared. Returns the site's number; numbers count from 0.
  virtual std::size_t add(const Linear& linear, formats::FormatPair formats) = 0;
  virtual std::size_t add(const Attention& attention, formats::FormatPair formats) = 0;

  // Linears that share x [..., In]: results [..., Out] each of x's dtype.
  virtual std::vector<Tensor> linears(std::span<const std::size_t> sites, const Tensor& x) = 0;

  virtual Tensor attention(std::size_t site, const AttentionOperands& operands) = 0;

  // Whether rounding leaves the operands of a call with inputs of that dtype as they are, so that a measured call needs
  // no second, exact product.
  virtual bool has_exact_operands(std::size_t site, at::ScalarType dtype) const = 0;

  // At the end of a request: hands the sink what was observed and not yet handed over.
  virtual void collect() {}

  // As SiteHook's functions of these names.
  virtual bool observes_joined_calls() const { return false; }
  virtual void keep_observed(std::size_t /*site*/) {}
  virtual void repeat_observed(std::size_t /*site*/, std::int64_t /*samples*/) {}

  ObservationMode mode = {};
  HookClock clock = {};

 protected:
  ErrorSink& sink_;
};

}  // namespace pi0::model
