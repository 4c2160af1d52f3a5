#include "model/linear.h"

namespace pi0::model {

Tensor plain_linear(const LinearOperands& operands) {
  return at::linear(operands.x, operands.weight, operands.bias);
}

Linear::Linear(BuildContext& context, const std::string& path, std::int64_t in, std::int64_t out,
               Bias bias) {
  MatmulSite& site = context.sites.add(path, SiteKind::linear, in, out);
  site.gemm = context.execution.gemm;
  if (site.gemm != nullptr) {
    const Tensor weight = context.lent(path + ".weight", {out, in});
    dtype_ = weight.scalar_type();
    site.packed = pack_weight(weight);
  } else {
    site.weight = context.parameter(path + ".weight", {out, in});
    dtype_ = site.weight.scalar_type();
  }
  if (bias == Bias::present) site.bias = context.parameter(path + ".bias", {out});
  site_ = &site;
}

Tensor Linear::operator()(const Tensor& x) const {
  site_->flop += 2 * x.numel() * site_->out_features;
  if (site_->hook != nullptr) return site_->hook->linear(x);
  if (site_->gemm != nullptr) return fast_linear(*site_->gemm, x, site_->packed, site_->bias);
  return plain_linear({x, site_->weight, site_->bias});
}

}  // namespace pi0::model
