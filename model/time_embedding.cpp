#include "model/time_embedding.h"

#include <numbers>

namespace pi0::model {

at::Tensor time_embedding(const at::Tensor& time, std::int64_t width) {
  constexpr double min_period = 4e-3, max_period = 4.0;
  const at::Tensor fraction = at::linspace(0.0, 1.0, width / 2, at::dtype(at::kDouble).device(time.device()));
  const at::Tensor period = at::pow(max_period / min_period, fraction) * min_period;
  // In the reference's order: another one would change the last bits.
  const at::Tensor factor = at::reciprocal(period) * 1.0 * 2.0 * std::numbers::pi;
  const at::Tensor angle = factor.unsqueeze(0) * time.unsqueeze(1);
  return at::cat({angle.sin(), angle.cos()}, 1).to(time.scalar_type());
}

}  // namespace pi0::model
