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
    const NumberFormat weight = formats ? formats->as_operand(formats->weight) : NumberFormat{};
    const bool is_kept = !formats || model::keeps(weight, stored);
    size.values += values;
    size.bytes += is_kept ? values * static_cast<std::int64_t>(c10::elementSize(stored))
                          : bytes_of(weight, site.out_features, site.in_features);
  }
  return size;
}

}  // namespace pi0::quant
