#include "model/linear.h"

#include <algorithm>

namespace pi0::model {
namespace {

void count_flop(const MatmulSite& site, const Tensor& x) { site.flop += 2 * x.numel() * site.out_features; }

}  // namespace

Tensor plain_linear(const LinearOperands& operands) { return at::linear(operands.x, operands.weight, operands.bias); }

Linear::Linear(BuildContext& context, const std::string& path, std::int64_t in, std::int64_t out, Bias bias) {
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
  count_flop(*site_, x);
  return site_->hook != nullptr ? site_->hook->linear(x) : site_->backend->linear(*site_, x);
}

JoinedLinears::JoinedLinears(std::initializer_list<const Linear*> linears) {
  for (const Linear* linear : linears) sites_.push_back(linear->site_);
  joined_ = sites_.front()->backend->join(sites_);
}

std::size_t JoinedLinears::hook_count() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(sites_, [](const MatmulSite* site) { return site->hook != nullptr; }));
}

std::vector<Tensor> JoinedLinears::hooked(const Tensor& x) const {
  if (hook_count() == sites_.size()) {
    std::vector<MatmulHook*> hooks;
    for (const MatmulSite* site : sites_) hooks.push_back(site->hook);
    return hooks.front()->linears(hooks, x);
  }
  std::vector<Tensor> results;
  for (const MatmulSite* site : sites_) {
    results.push_back(site->hook != nullptr ? site->hook->linear(x) : site->backend->linear(*site, x));
  }
  return results;
}

std::vector<Tensor> JoinedLinears::operator()(const Tensor& x) const {
  for (const MatmulSite* site : sites_) count_flop(*site, x);
  return hook_count() == 0 ? sites_.front()->backend->linears(joined_, x) : hooked(x);
}

Tensor JoinedLinears::gated(const Tensor& x) const {
  for (const MatmulSite* site : sites_) count_flop(*site, x);
  const Backend& backend = *sites_.front()->backend;
  if (hook_count() == 0) return backend.gated_linears(joined_, x);
  const std::vector<Tensor> both = hooked(x);
  return backend.gelu(both[0], both[1]);
}

}  // namespace pi0::model
