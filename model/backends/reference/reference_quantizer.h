// The reference's quantized linears and attentions: operands rounded, multiplied in float32, results rounded, errors
// against the exact operands' results. The other backends' quantizers derive from it what they do no faster.
#pragma once

#include <vector>

#include "model/attention.h"
#include "model/backend.h"
#include "model/linear.h"
#include "model/quantizer.h"
#include "model/rounding.h"

namespace pi0::model {

class ReferenceQuantizer : public Quantizer {
 public:
  ReferenceQuantizer(const Backend& backend, ErrorSink& sink) : Quantizer(sink), backend_(backend) {}

  std::size_t add(const Linear& linear, formats::FormatPair formats) override;
  std::size_t add(const Attention& attention, formats::FormatPair formats) override;
  std::vector<Tensor> linears(std::span<const std::size_t> sites, const Tensor& x) override;
  Tensor attention(std::size_t site, const AttentionOperands& operands) override;
  bool has_exact_operands(std::size_t site, at::ScalarType dtype) const override;

 protected:
  struct Site {
    formats::FormatPair formats;
    const Linear* linear = nullptr;  // null: an attention
    Tensor weight_codes = {};        // [Out, In] in the input format's dtype
    Tensor bias_codes = {};          // [Out]
  };

  // Tells the sink where a value overflowed.
  void note(bool overflowed, std::size_t site, Operand operand);

  // An attention's operand to the site's input format, and its output to the output format; same dtype. `exact` is the
  // output of the exact operands, undefined if it is not compared.
  virtual Tensor round_operand(std::size_t site, const Tensor& operand);
  virtual Tensor round_attended(std::size_t site, const Tensor& attended, const Tensor& exact);

  const Backend& backend_;
  std::vector<Site> sites_;

 private:
  Tensor linear(std::size_t site, const Tensor& x);
  const LayerKv& rounded_prefix(std::size_t site, const LayerKv& prefix);
  void observe(std::size_t site, const Tensor& reference, const Tensor& result);
};

}  // namespace pi0::model
