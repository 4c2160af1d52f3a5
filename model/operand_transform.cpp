#include "model/operand_transform.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>
#include <vector>

namespace pi0::model {
namespace {

using at::Tensor;

constexpr std::int64_t most_rotated = 64;

std::int64_t block_of(std::int64_t in) { return std::min(most_rotated, in & -in); }  // powers of two

// Sylvester's Hadamard matrix over the root of its size: symmetric, and its own inverse.
const Tensor& hadamard(std::int64_t size) {
  static const std::vector<Tensor> matrices = [] {
    std::vector<Tensor> all = {at::ones({1, 1}, at::kFloat)};
    while (all.back().size(0) < most_rotated) {
      const Tensor& half = all.back();
      all.push_back(at::cat({at::cat({half, half}, 1), at::cat({half, -half}, 1)}));
    }
    for (Tensor& matrix : all) matrix = matrix / std::sqrt(static_cast<double>(matrix.size(0)));
    return all;
  }();
  return matrices[static_cast<std::size_t>(std::countr_zero(static_cast<std::uint64_t>(size)))];
}

// A percentile of the values' magnitudes, interpolated linearly as by numpy.percentile.
float percentile_of(const Tensor& values, double percentile) {
  const Tensor magnitudes = values.abs().flatten().contiguous();
  auto* const begin = magnitudes.mutable_data_ptr<float>();
  auto* const end = begin + magnitudes.numel();
  const double place = percentile / 100 * static_cast<double>(magnitudes.numel() - 1);
  auto* const lower = begin + static_cast<std::int64_t>(place);
  std::nth_element(begin, lower, end);
  if (lower + 1 == end) return *lower;
  const float next = *std::min_element(lower + 1, end);
  return static_cast<float>(*lower + (place - std::floor(place)) * (static_cast<double>(next) - *lower));
}

Tensor channel_scales(const Tensor& weight, const Tensor& input_absmax, double alpha) {
  if (!input_absmax.defined()) throw std::invalid_argument("smoothing needs a calibration; give --calibration");
  const Tensor of_weight = weight.abs().amax(0);
  const Tensor scales = input_absmax.pow(alpha) / of_weight.pow(1 - alpha);
  // A channel without values has no scale.
  return at::where((input_absmax > 0) & (of_weight > 0), scales, at::ones_like(scales));
}

}  // namespace

OperandTransform::OperandTransform(const Tensor& weight, const formats::Methods& methods,
                                   const InputStatistics& statistics) {
  if (methods.rotate) block_ = block_of(weight.size(1));
  if (!methods.smooth && !methods.clip) return;
  const Tensor values = weight.to(at::kFloat);
  if (methods.smooth) channel_scales_ = channel_scales(values, statistics.absmax, *methods.smooth);
  if (!methods.clip) return;
  weight_clip_ = percentile_of(values, *methods.clip);
  input_clip_ = statistics.clip;
}

Tensor OperandTransform::rotated(const Tensor& values) const {
  if (block_ <= 1) return values;
  return at::matmul(values.reshape({-1, block_}), hadamard(block_)).view(values.sizes());
}

Tensor OperandTransform::inputs(const Tensor& x) const {
  Tensor values = x.to(at::kFloat);
  if (input_clip_) values = values.clamp(-*input_clip_, *input_clip_);
  if (channel_scales_.defined()) values = values / channel_scales_;
  return rotated(values);
}

Tensor OperandTransform::weight(const Tensor& weight) const {
  Tensor values = weight.to(at::kFloat);
  if (weight_clip_) values = values.clamp(-*weight_clip_, *weight_clip_);
  if (channel_scales_.defined()) values = values * channel_scales_;
  return rotated(values);
}

bool OperandTransform::has_inputs_of(const OperandTransform& other) const {
  return block_ == other.block_ && input_clip_ == other.input_clip_ && channel_scales_.is_same(other.channel_scales_);
}

}  // namespace pi0::model
