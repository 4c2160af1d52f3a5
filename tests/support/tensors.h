// How far apart two tensors are.
#pragma once

#include <ATen/ATen.h>

namespace pi0::test {

// Root mean square of the difference over that of `expected`, in float64.
inline double relative_rms(const at::Tensor& found, const at::Tensor& expected) {
  const at::Tensor difference = found.to(at::kDouble) - expected.to(at::kDouble);
  const double scale = expected.to(at::kDouble).square().mean().item<double>();
  return std::sqrt(difference.square().mean().item<double>() / std::max(scale, 1e-300));
}

// Whether two tensors' values are the same to the bit in float32, except which NaN they are.
inline bool same(const at::Tensor& found, const at::Tensor& expected) {
  const at::Tensor a = found.to(at::kCPU, at::kFloat), b = expected.to(at::kCPU, at::kFloat);
  return ((a.isnan() & b.isnan()) | (a.view(at::kInt) == b.view(at::kInt))).all().item<bool>();
}

}  // namespace pi0::test
