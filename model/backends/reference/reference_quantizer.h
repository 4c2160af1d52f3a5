// Quantized linears and attentions with the reference operations: rounds operands, multiplies, rounds results, and
// compares these with the results of the exact operands. Linears multiply in float32. The other backends' quantizers
// derive from it what they do not make faster.
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

  // Reports an overflow to the sink.
  void note(bool overflowed, std::size_t site, Operand operand);

  // Round an attention's operand to the site's input format, and its output to the output format. The dtype stays.
  // `exact` is the output of the exact operands, or undefined if nothing is compared.
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
