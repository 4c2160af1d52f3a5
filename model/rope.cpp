#include "model/rope.h"

namespace pi0::model {

RotaryEmbedding::RotaryEmbedding(std::int64_t head_dim, Precision precision, at::Device device) {
  constexpr double base = 10000.0;
  const Tensor exponents = at::arange(0, head_dim, 2, at::kLong).to(at::kFloat) / head_dim;
  inverse_frequencies_ = at::reciprocal(at::pow(base, exponents));
  if (precision == Precision::bfloat16) {
    inverse_frequencies_ = inverse_frequencies_.to(at::kBFloat16).to(at::kFloat);
  }
  // MKL selects its code for cosine and sine in the first call. If two threads make that call at once, as angles()
  // below may, results are off by 2e-4 in one process of three (LibTorch 2.13, seen with AMX). So one thread makes it
  // here.
  inverse_frequencies_.cos();
  inverse_frequencies_.sin();
  inverse_frequencies_ = inverse_frequencies_.to(device);
}

RotaryAngles RotaryEmbedding::angles(const Tensor& positions, at::ScalarType dtype) const {
  const Tensor columns = inverse_frequencies_.view({1, -1, 1}).expand({positions.size(0), -1, 1});
  const Tensor rows = positions.unsqueeze(1).to(at::kFloat);
  const Tensor half = at::matmul(columns, rows).transpose(1, 2);  // [B, L, D / 2]
  const Tensor all = at::cat({half, half}, -1);
  return {all.cos().to(dtype).unsqueeze(1), all.sin().to(dtype).unsqueeze(1)};
}

// Dimension i is paired with i + D / 2, not with its neighbour (modeling_gemma.py rotate_half).
Tensor rotate(const Tensor& x, const RotaryAngles& angles) {
  const auto halves = x.split(x.size(-1) / 2, -1);
  const Tensor rotated = at::cat({-halves[1], halves[0]}, -1);
  return x * angles.cos + rotated * angles.sin;
}

}  // namespace pi0::model
