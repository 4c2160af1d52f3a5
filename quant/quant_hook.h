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

// What these hooks share. The quantizer must outlive them.
template <class ModelHook>
class QuantHook : public ModelHook {
 public:
  QuantHook(model::Quantizer& quantizer, std::size_t number) : quantizer_(quantizer), number_(number) {}

  bool observes() const override { return quantizer_.mode.measured; }
  bool observes_joined_calls() const override { return true; }
  void keep_observed() override { quantizer_.keep_observed(number_); }
  void repeat_observed(std::int64_t samples) override { quantizer_.repeat_observed(number_, samples); }

 protected:
  model::Quantizer& quantizer_;
  const std::size_t number_;  // of the site in the quantizer
};

class LinearHook : public QuantHook<model::LinearHook> {
 public:
  // `site` must outlive the hook.
  LinearHook(const model::Linear& site, model::Quantizer& quantizer, const SiteFormats& formats,
             const model::InputStatistics& statistics = {});

  model::Tensor linear(const model::Tensor& x) override;
  std::vector<model::Tensor> linears(std::span<model::LinearHook* const> hooks, const model::Tensor& x) override;

 private:
  void count_flop(const model::Tensor& x) const;  // of the exact product that a measured call adds

  const model::Linear& site_;
};

class KvCacheHook : public QuantHook<model::KvCacheHook> {
 public:
  KvCacheHook(const model::KvCacheSite& site, model::Quantizer& quantizer, const NumberFormat& format)
      : QuantHook(quantizer, quantizer.add(site, format)) {}

  model::LayerKv keep(const model::LayerKv& layer) override { return quantizer_.keep(number_, layer); }
};

class VectorHook : public QuantHook<model::VectorHook> {
 public:
  VectorHook(const model::VectorSite& site, model::Quantizer& quantizer, const NumberFormat& format)
      : QuantHook(quantizer, quantizer.add(site, format)) {}

  model::Tensor apply(std::span<const model::Tensor> inputs, model::VectorOperation operation) override {
    return quantizer_.apply(number_, inputs, operation);
  }
};

class AttentionHook : public QuantHook<model::AttentionHook> {
 public:
  // `site` must outlive the hook.
  AttentionHook(const model::Attention& site, model::Quantizer& quantizer, const SiteFormats& formats);

  model::Tensor attention(const model::AttentionOperands& operands) override;

 private:
  const model::Attention& site_;
};

}  // namespace pi0::quant
