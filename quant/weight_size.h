// What a model's weights take in memory under a plan. No LibTorch.
#pragma once

#include <cstdint>

namespace pi0::model {
class SiteList;
}

namespace pi0::quant {

struct QuantPlan;

// How large the weights of all linears are that are ever called: as codes with their scales (formats::bytes_of), or as
// they are stored where a plan leaves them.
struct WeightSize {
  std::int64_t values = 0;
  std::int64_t bytes = 0;
  double bits() const { return values == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(values); }
};

WeightSize weight_size(const model::SiteList& sites, const QuantPlan& plan);

}  // namespace pi0::quant
