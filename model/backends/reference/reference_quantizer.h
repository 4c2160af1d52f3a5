// Quantized linears and attentions with the reference operations: rounds operands, multiplies, rounds results, and
// compares these with the results of the exact operands. Linears multiply in float32. The other backends' quantizers
// derive from it what they do not make faster.
#pragma once

#include <variant>
#include <vector>

#include "model/attention.h"
#include "model/backend.h"
#include "model/linear.h"
#include "model/number_rounding.h"
#include "model/quantizer.h"

namespace pi0::model {

class ReferenceQuantizer : public Quantizer {
 public:
  ReferenceQuantizer(const Backend& backend, ErrorSink& sink) : Quantizer(sink), backend_(backend) {}

  std::size_t add(const Linear& linear, const formats::SiteFormats& formats,
                  const InputStatistics& statistics) override;
  std::size_t add(const Attention& attention, const formats::SiteFormats& formats) override;
  std::size_t add(const KvCacheSite& cache, const formats::NumberFormat& format) override;
  std::size_t add(const VectorSite& vector, const formats::NumberFormat& format) override;
  std::vector<Tensor> linears(std::span<const std::size_t> sites, const Tensor& x) override;
  Tensor attention(std::size_t site, const AttentionOperands& operands) override;
  LayerKv keep(std::size_t site, const LayerKv& layer) override;
  bool has_exact_product(std::size_t site, at::ScalarType dtype) const override;
  Tensor apply(std::size_t site, std::span<const Tensor> inputs, VectorOperation operation) override;
  bool release_exact_weight(std::size_t site) override;
  void collect() override;
  void keep_observed(std::size_t site) override { sites_[site].kept = {.is_new = true}; }
  void repeat_observed(std::size_t site, std::int64_t samples) override {
    sites_[site].kept.samples = mode.samples_apart ? samples : 1;
  }

 protected:
  using Observed = std::variant<formats::CallError, formats::ErrorStats, formats::ByCause<formats::CallError>>;

  // What was observed of results that the model has cached since.
  struct Kept {
    std::vector<Observed> errors = {};
    bool is_new = false;       // observed in the current request, for its first sample
    std::int64_t samples = 0;  // of the current request, for which it counts
  };

  struct Site {
    const MatmulSite* module;
    formats::SiteFormats formats;
    const Linear* linear = nullptr;  // null: an attention, a KV cache or a vector operation
    Tensor weight_codes = {};        // [Out, In] in the dtype of a plain cast; undefined for other formats
    CodedWeight coded_weight = {};   // for those
    Tensor bias_codes = {};          // [Out]
    OperandTransform transform = {};
    std::optional<formats::Range> input_range = {};  // of static scales
    std::uint64_t noise_key = 0;                     // of its path
    Kept kept = {};
  };

  // Sets what changes a linear's operands before they are rounded. `weight` is dense, of any floating dtype.
  static void prepare(Site& site, const Tensor& weight, const InputStatistics& statistics);

  // Reports an overflow to the sink.
  void note(bool overflowed, std::size_t site, Operand operand);

  // Results of one call [B, ...] float32, from the exact operands to the output's format. The same tensor where a step
  // changes nothing.
  struct Results {
    Tensor exact, of_rounded_operands, accumulated, rounded;
  };

  // Reports the error of a call, or of each of the calls that it joins: of the batch, or of each sample; by cause too
  // if that is asked for.
  void observe(std::size_t site, const Results& results);

  // A call's samples are observed in so many parts, one after the other, each of which is passed to report().
  std::int64_t part_count(std::size_t site, std::int64_t samples) const;
  void report(std::size_t site, std::int64_t part, std::int64_t parts, const Observed& observed);

  // Passes on to the sink what was observed of a sample, and keeps it if the model caches the result.
  void pass(std::size_t site, std::size_t sample, const Observed& observed);

  // Rounds sums or results [B, ...] float32 to the output's format, and adds the noise.
  Tensor round_output(std::size_t site, const Tensor& values);

  // Round an attention's operand [B, H, L, D] to the site's input format along the last dimension, and its output to
  // the output format. The dtype stays.
  // `exact` is the output of the exact operands, or undefined if nothing is compared.
  virtual Tensor round_operand(std::size_t site, const Tensor& operand);
  virtual Tensor round_attended(std::size_t site, const Tensor& attended, const Tensor& exact);

  // x Wᵀ of float32 matrices, accumulated in order.
  virtual Tensor ordered_product(const formats::Accumulator& accumulator, const Tensor& x, const Tensor& weight) const;

  const Backend& backend_;
  std::vector<Site> sites_;

 private:
  Tensor linear(std::size_t site, const Tensor& x);
  Tensor round_value(std::size_t site, const Tensor& value);
  const LayerKv& rounded_prefix(std::size_t site, const LayerKv& prefix);
};

}  // namespace pi0::model
