#include "quant/weight_size.h"

#include "model/linear.h"
#include "model/number_rounding.h"
#include "quant/quant_plan.h"

namespace pi0::quant {

WeightSize weight_size(const model::SiteList& sites, const QuantPlan& plan) {
  WeightSize size;
  std::size_t index = 0;
  for (const model::MatmulSite& site : sites.all()) {
    const std::optional<SiteFormats>& formats = plan.matmuls[index++];
    const auto* const linear = dynamic_cast<const model::Linear*>(&site);
    if (linear == nullptr) continue;
    const std::int64_t values = site.in_features * site.out_features;
    const at::ScalarType stored = linear->dtype();
    // Accumulators that encode operands read 8 bits, whatever the values were rounded to before.
    const bool is_encoded = formats && encodes_operands(formats->accumulator);
    const NumberFormat weight = is_encoded ? NumberFormat{Format::float8_e4m3} : formats.value_or(SiteFormats()).weight;
    const bool is_kept = !formats || model::keeps(weight, stored);
    size.values += values;
    size.bytes += is_kept ? values * static_cast<std::int64_t>(c10::elementSize(stored))
                          : bytes_of(weight, site.out_features, site.in_features);
  }
  return size;
}

}  // namespace pi0::quant
