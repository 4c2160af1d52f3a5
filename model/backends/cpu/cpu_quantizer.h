// Quantized linears with the fast CPU kernels. Strips of the result are rounded and compared while they are in cache.
// The results are the reference's except for the order of sums.
#pragma once

#include <vector>

#include "model/backends/cpu/cpu_backend.h"
#include "model/backends/reference/reference_quantizer.h"
#include "quant/formats/rounding_kernels.h"

namespace pi0::model {

class CpuQuantizer : public ReferenceQuantizer {
 public:
  CpuQuantizer(const CpuBackend& backend, ErrorSink& sink);

  std::size_t add(const Linear& linear, formats::FormatPair formats) override;
  std::size_t add(const Attention& attention, formats::FormatPair formats) override;
  std::vector<Tensor> linears(std::span<const std::size_t> sites, const Tensor& x) override;
  bool has_exact_operands(std::size_t site, at::ScalarType dtype) const override;

 private:
  // A linear's parameters. The rounded ones are the linear's own if rounding changes nothing.
  struct Packed {
    PackedWeight exact_weight, weight;
    Tensor exact_terms, terms;  // the bias padded to whole panels
    bool weight_is_exact = true;
  };
  // x, rounded to a format and packed. Linears that share x share it.
  struct SharedInput {
    formats::Format format;
    Lane lane;
    PackedInput packed;
    bool overflowed;
  };
  class Inputs;

  Lane lane_of(std::size_t site, at::ScalarType x) const;
  SharedInput pack(const Tensor& x, formats::Format format, Lane lane);
  Tensor linear(std::size_t site, const Tensor& x, Inputs& inputs);

  const GemmKernels& gemm_;
  const formats::RoundingKernels& rounding_;
  std::vector<Packed> packed_;  // by site; empty for attentions
};

}  // namespace pi0::model
