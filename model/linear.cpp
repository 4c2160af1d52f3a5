#include "model/linear.h"

namespace pi0::model {

Tensor plain_linear(const LinearOperands& operands) {
  return at::linear(operands.x, operands.weight, operands.bias);
}

Linear::Linear(BuildContext& context, const std::string& path, std::int64_t in, std::int64_t out,
               Bias bias) {
  MatmulSite& site = context.sites.add(path, SiteKind::linear, in, out);
  site.weight = context.parameter(path + ".weight", {out, in});
  if (bias == Bias::present) site.bias = context.parameter(path + ".bias", {out});
  site_ = &site;
}

Tensor Linear::operator()(const Tensor& x) const {
  const LinearOperands operands{x, site_->weight, site_->bias};
  return site_->hook != nullptr ? site_->hook->linear(operands) : plain_linear(operands);
}

}  // namespace pi0::model
