#include "model/masks.h"

namespace pi0::model {

Tensor block_mask(const Tensor& pad_mask, const Tensor& block_starts) {
  const Tensor block = block_starts.cumsum(0);  // [L]
  const Tensor visible = block.unsqueeze(0) <= block.unsqueeze(1);
  return visible.unsqueeze(0) & pad_mask.unsqueeze(1) & pad_mask.unsqueeze(2);
}

Tensor additive_mask(const Tensor& allowed) {
  // Finite, as in the reference: softmax of a row without any allowed token, as padding has, is then not NaN.
  constexpr float masked = -2.3819763e38F;
  const auto options = at::dtype(at::kFloat).device(allowed.device());
  return at::where(allowed.unsqueeze(1), at::scalar_tensor(0.0, options), at::scalar_tensor(masked, options));
}

}  // namespace pi0::model
