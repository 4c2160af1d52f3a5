// The hook that rounds one site's matmul and observes what that costs.
// References: pi0-quant quant_linear.py QuantLinear, model_patcher.py QuantAttnContext.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "model/kernels/fast_attention.h"
#include "model/matmul_site.h"
#include "quant/format.h"
#include "quant/rounding.h"
#include "quant/stats_book.h"

namespace pi0::quant {

// Nanoseconds that threads spent in fast hooks, summed over threads.
struct HookClock {
  std::atomic<std::int64_t> rounding = 0;
  std::atomic<std::int64_t> statistics = 0;  // error sums, with the rounding of results in the same pass
};

// Adds the time from its making to its end to one of the clock's sums.
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

// What the hooks of one attachment share; changed between requests only.
struct HookContext {
  StatsBook* book = nullptr;                     // null: nothing is observed
  bool measure = true;                           // whether the request under way is observed
  bool samples_apart = false;                    // whether each sample of a batch is an observation, or the whole batch
  std::function<void(const std::string&)> warn;  // a format overflowed; once per layer

  HookClock* clock = nullptr;

  bool measured() const { return book != nullptr && measure; }
};

// Warns once that a format overflowed in a layer.
class OverflowNote {
 public:
  OverflowNote(const model::MatmulSite& site, const HookContext& context) : site_(site), context_(context) {}
  void note(bool overflowed, const char* what);

 private:
  const model::MatmulSite& site_;
  const HookContext& context_;
  bool warned_ = false;
};

class QuantHook : public model::MatmulHook {
 public:
  // Rounds the site's weight and bias to the input format once and keeps them as codes; a weight that
  // is stored in that format already is shared. All references must outlive the hook.
  QuantHook(model::MatmulSite& site, FormatPair formats, const HookContext& context, std::size_t entry);

  model::Tensor linear(const model::Tensor& x) override;
  model::Tensor attention(const model::AttentionOperands& operands) override;
  bool observes() const override { return context_.measured(); }

 protected:
  virtual model::Tensor round_operand(const model::Tensor& operand);  // to the input format, same dtype

  // Rounds an attention's output; `reference` is that of the exact operands, undefined where not observed.
  virtual model::Tensor settle_attention(const model::Tensor& attended, const model::Tensor& reference);

  model::MatmulSite& site_;
  const FormatPair formats_;
  const HookContext& context_;
  model::Tensor weight_codes_;  // [Out, In] in the input format's dtype
  model::Tensor bias_codes_;    // [Out]
  OverflowNote overflow_;

 private:
  void round_prefix(model::AttentionOperands& operands);
  void observe(const model::Tensor& reference, const model::Tensor& result);

  const std::size_t entry_;  // in the book

  // An attention's prefix, rounded once for all denoise steps of a request.
  struct RoundedPrefix {
    model::Tensor exact_key;  // held, so that its identity cannot pass to another tensor
    model::Tensor key, value;
    model::PrefixPack pack;
  } prefix_;
};

}  // namespace pi0::quant
