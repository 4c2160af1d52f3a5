#include "model/backend.h"

#include "model/backends/reference/reference_backend.h"
#include "model/linear.h"

namespace pi0::model {

Tensor Backend::first_row(const Linear& linear) const { return linear.weight().select(0, 0); }

JoinedWeights Backend::join(std::span<Linear* const>) const { return {}; }

std::vector<Tensor> Backend::linears(LinearSpan linears, const JoinedWeights&, const Tensor& x) const {
  std::vector<Tensor> results;
  for (const Linear* each : linears) results.push_back(linear(*each, x));
  return results;
}

Tensor Backend::gated_linears(LinearSpan linears, const JoinedWeights& joined, const Tensor& x) const {
  const std::vector<Tensor> both = this->linears(linears, joined, x);
  return gelu(both[0], both[1]);
}

Normed Backend::layer_norm(const Residual& in, const Tensor& weight, const Tensor& bias, double epsilon) const {
  const Tensor x = add_up(in);
  return {x, at::layer_norm(x, {x.size(-1)}, weight, bias, epsilon)};
}

}  // namespace pi0::model
