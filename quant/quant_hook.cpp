#include "quant/quant_hook.h"

namespace pi0::quant {

using model::Tensor;

LinearHook::LinearHook(const model::Linear& site, model::Quantizer& quantizer, const SiteFormats& formats,
                       const model::InputStatistics& statistics)
    : QuantHook(quantizer, quantizer.add(site, formats, statistics)), site_(site) {}

void LinearHook::count_flop(const Tensor& x) const {
  if (quantizer_.mode.measured && !quantizer_.has_exact_product(number_, x.scalar_type())) site_.count_flop(x);
}

Tensor LinearHook::linear(const Tensor& x) {
  count_flop(x);
  return quantizer_.linears({&number_, 1}, x).front();
}

std::vector<Tensor> LinearHook::linears(std::span<model::LinearHook* const> hooks, const Tensor& x) {
  std::vector<std::size_t> numbers;
  for (model::LinearHook* hook : hooks) {
    const auto* const own = dynamic_cast<const LinearHook*>(hook);
    if (own == nullptr || &own->quantizer_ != &quantizer_) return model::LinearHook::linears(hooks, x);
    numbers.push_back(own->number_);
  }
  for (model::LinearHook* hook : hooks) static_cast<const LinearHook*>(hook)->count_flop(x);
  return quantizer_.linears(numbers, x);
}

AttentionHook::AttentionHook(const model::Attention& site, model::Quantizer& quantizer, const SiteFormats& formats)
    : QuantHook(quantizer, quantizer.add(site, formats)), site_(site) {}

Tensor AttentionHook::attention(const model::AttentionOperands& operands) {
  const bool is_exact =
      operands.softmax == nullptr && quantizer_.has_exact_product(number_, operands.query.scalar_type());
  if (quantizer_.mode.measured && !is_exact) site_.flop += model::attention_flop(operands);
  return quantizer_.attention(number_, operands);
}

}  // namespace pi0::quant
