// Hooks that replace what a site computes by its quantized form. The backend's quantizer computes; the hooks only count
// flop.
// References: pi0-quant quant_linear.py QuantLinear, model_patcher.py QuantAttnContext.
#pragma once

#include "model/attention.h"
#include "model/linear.h"
#include "model/quantizer.h"
#include "model/vector_site.h"
#include "quant/format.h"

namespace pi0::quant {

class LinearHook : public model::LinearHook {
 public:
  // `site` and `quantizer` must outlive the hook.
  LinearHook(const model::Linear& site, model::Quantizer& quantizer, const SiteFormats& formats,
             const model::InputStatistics& statistics = {});

  model::Tensor linear(const model::Tensor& x) override;
  std::vector<model::Tensor> linears(std::span<model::LinearHook* const> hooks, const model::Tensor& x) override;
  bool observes() const override { return quantizer_.mode.measured; }
  bool observes_joined_calls() const override { return quantizer_.observes_joined_calls(); }
  void keep_observed() override { quantizer_.keep_observed(number_); }
  void repeat_observed(std::int64_t samples) override { quantizer_.repeat_observed(number_, samples); }

 private:
  void count_flop(const model::Tensor& x) const;  // of the exact product that a measured call adds

  const model::Linear& site_;
  model::Quantizer& quantizer_;
  const std::size_t number_;  // of the site in the quantizer
};

class KvCacheHook : public model::KvCacheHook {
 public:
  KvCacheHook(const model::KvCacheSite& site, model::Quantizer& quantizer, const NumberFormat& format)
      : quantizer_(quantizer), number_(quantizer.add(site, format)) {}

  model::LayerKv keep(const model::LayerKv& layer) override { return quantizer_.keep(number_, layer); }
  bool observes() const override { return quantizer_.mode.measured; }
  bool observes_joined_calls() const override { return quantizer_.observes_joined_calls(); }

 private:
  model::Quantizer& quantizer_;
  const std::size_t number_;
};

class VectorHook : public model::VectorHook {
 public:
  VectorHook(const model::VectorSite& site, model::Quantizer& quantizer, const NumberFormat& format)
      : quantizer_(quantizer), number_(quantizer.add(site, format)) {}

  model::Tensor apply(std::span<const model::Tensor> inputs, model::VectorOperation operation) override {
    return quantizer_.apply(number_, inputs, operation);
  }
  bool observes() const override { return quantizer_.mode.measured; }
  bool observes_joined_calls() const override { return quantizer_.observes_joined_calls(); }

 private:
  model::Quantizer& quantizer_;
  const std::size_t number_;
};

class AttentionHook : public model::AttentionHook {
 public:
  AttentionHook(const model::Attention& site, model::Quantizer& quantizer, const SiteFormats& formats);

  model::Tensor attention(const model::AttentionOperands& operands) override;
  bool observes() const override { return quantizer_.mode.measured; }
  bool observes_joined_calls() const override { return quantizer_.observes_joined_calls(); }

 private:
  const model::Attention& site_;
  model::Quantizer& quantizer_;
  const std::size_t number_;
};

}  // namespace pi0::quant
