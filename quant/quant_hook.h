// The hook that rounds one site's matmul and observes what that costs.
// References: pi0-quant quant_linear.py QuantLinear, model_patcher.py QuantAttnContext.
#pragma once

#include <functional>
#include <string>

#include "model/matmul_site.h"
#include "quant/format.h"
#include "quant/rounding.h"
#include "quant/stats_book.h"

namespace pi0::quant {

// What the hooks of one attachment share; changed between requests only.
struct HookContext {
  StatsBook* book = nullptr;  // null: nothing is observed
  bool measure = true;        // whether the request under way is observed
  std::function<void(const std::string&)> warn;  // a format overflowed; once per layer
};

class QuantHook : public model::MatmulHook {
 public:
  // Rounds the site's weight and bias to the input format once and keeps them as codes; a weight that
  // is stored in that format already is shared. All references must outlive the hook.
  QuantHook(const model::MatmulSite& site, FormatPair formats, const HookContext& context,
            std::size_t entry);

  model::Tensor linear(const model::LinearOperands& operands) override;
  model::Tensor attention(const model::AttentionOperands& operands) override;

 private:
  model::Tensor round_operand(const model::Tensor& operand);  // to the input format, same dtype
  void note_overflow(const Rounded& rounded, const char* what);
  bool is_measured() const { return context_.book != nullptr && context_.measure; }
  void observe(const model::Tensor& reference, const model::Tensor& result);

  const model::MatmulSite& site_;
  const FormatPair formats_;
  const HookContext& context_;
  const std::size_t entry_;      // in the book
  model::Tensor weight_codes_;   // [Out, In] in the input format's dtype
  model::Tensor bias_codes_;     // [Out]
  bool warned_ = false;
};

}  // namespace pi0::quant
