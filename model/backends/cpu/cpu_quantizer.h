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

  std::size_t add(const Linear& linear, const formats::SiteFormats& formats,
                  const InputStatistics& statistics) override;
  std::size_t add(const Attention& attention, const formats::SiteFormats& formats) override;
  std::size_t add(const KvCacheSite& cache, const formats::NumberFormat& format) override;
  std::size_t add(const VectorSite& vector, const formats::NumberFormat& format) override;
  std::vector<Tensor> linears(std::span<const std::size_t> sites, const Tensor& x) override;
  bool has_exact_product(std::size_t site, at::ScalarType dtype) const override;
  bool release_exact_weight(std::size_t site) override;

 protected:
  Tensor ordered_product(const formats::Accumulator& accumulator, const Tensor& x, const Tensor& weight) const override;

 private:
  // A linear's parameters. The rounded ones are the linear's own if rounding changes nothing.
  struct Packed {
    PackedWeight exact_weight, weight;
    Tensor exact_terms, terms;  // the bias padded to whole panels; `terms` encoded if the accumulator encodes operands
    bool weight_is_exact = true;
    bool exact_fits_pairs = true;  // the exact weight's values fit bfloat16
  };
  // x, rounded to a format and packed. Linears that share x share it if the rest is the same.
  struct SharedInput {
    NumberFormat format;
    Lane lane;
    PackedInput packed;
    bool overflowed;
    OperandTransform transform = {};
    std::optional<formats::Range> range = {};  // of static scales
    bool encoded = false;                      // for an accumulator that encodes operands
  };
  class Inputs;

  // The products of one call over the same rows, in the order of a strip's sums, and the bias to add to each
  // (undefined: none).
  struct Call {
    std::vector<Product> products;
    std::vector<Tensor> terms;
    bool has_exact = false;                // the second product is that of the exact operands
    bool has_of_rounded_operands = false;  // the last one is that of the rounded operands, not accumulated
  };

  // The weight of the linear `number` as its format stores it. `dense` is the weight as it is to be rounded, undefined
  // for a plain cast of the weight itself.
  PackedWeight rounded_weight(std::size_t number, const Site& site, const Packed& packed, const Tensor& dense);
  // The bias of the linear `number`, rounded as its weight.
  Tensor rounded_terms(std::size_t number, const Site& site, const Packed& packed);

  // For the rounded product, and for the exact one beside it.
  Lane lane_of(std::size_t site, at::ScalarType x) const;
  Lane exact_lane_of(std::size_t site, at::ScalarType x) const;

  SharedInput pack(const Tensor& x, const NumberFormat& format, Lane lane, const std::optional<formats::Range>& range,
                   bool encoded);
  Tensor linear(std::size_t site, const Tensor& x, Inputs& inputs);

  // Writes the rounded product to `result`, and reports its error if it is measured. A plain cast rounds strips while
  // they are in cache; other formats round whole rows, whose neighbours share scales. So do errors by cause, and noise.
  void finish_strips(std::size_t site, const Call& call, std::int64_t samples, Tensor& result);
  void finish_rows(std::size_t site, const Call& call, std::int64_t samples, Tensor& result);

  // Adds the biases to a strip's sums.
  void add_biases(const Call& call, const Strip& strip) const;

  const GemmKernels& gemm_;
  const formats::RoundingKernels& rounding_;
  std::vector<Packed> packed_;  // by site; empty for all but linears
};

}  // namespace pi0::model
