#include "model/continuation.h"

#include <algorithm>
#include <numbers>

namespace pi0::model {

Tensor prefix_weights(PrefixSchedule schedule, std::int64_t start, std::int64_t end, std::int64_t total) {
  Tensor weights = at::zeros({total});
  weights.slice(0, 0, start).fill_(1);
  Tensor between = weights.slice(0, start, end);
  if (schedule == PrefixSchedule::ones) between.fill_(1);
  if (schedule == PrefixSchedule::zeros || schedule == PrefixSchedule::ones) return weights;
  const std::int64_t count = end - start;
  const Tensor falling = at::linspace(1, 0, count + 2).slice(0, 1, count + 1);
  between.copy_(schedule == PrefixSchedule::linear ? falling : falling * falling.expm1().div(std::numbers::e - 1));
  return weights;
}

double guidance_weight(float time, std::int64_t num_steps) {
  constexpr double most = 10;
  const double left = time, done = 1 - left;
  return std::min({most, static_cast<double>(num_steps), (left * left + done * done) / (left * done)});
}

Tensor with_held(const Continuation& continuation, const Tensor& noise) {
  return continuation.is_defined() ? at::where(continuation.held, continuation.target, noise) : noise;
}

Tensor guided(const Continuation& continuation, const Tensor& actions, const Tensor& velocity, float time,
              std::int64_t num_steps) {
  if (!continuation.is_defined()) return velocity;
  const Tensor error = (continuation.target - (actions - velocity * time)) * continuation.weights;
  return (velocity - error * guidance_weight(time, num_steps)).masked_fill(continuation.held, 0);
}

}  // namespace pi0::model
