// Runs openpi's operations one by one with LibTorch, on any device. The other backends must agree with it, and derive
// from it what they do not make faster.
#pragma once

#include "model/attention.h"
#include "model/backend.h"

namespace pi0::model {

Tensor plain_linear(const Tensor& x, const Tensor& weight, const Tensor& bias);  // xWᵀ + b

// References: modeling_gemma.py eager_attention_forward; transformers' sdpa_attention_forward.
// Scores have the operands' dtype; mask and softmax are float32. [B, H, L, D].
Tensor plain_attention(const AttentionOperands& operands);

// x + update · gate. Reference: modeling_gemma.py _gated_residual.
Tensor add_up(const Residual& residual);

// The factor of an RMS norm and what it adds, undefined if plain: float32, [W] or [B or 1, 1, W].
struct ScaleAndShift {
  Tensor scale, shift;
};
ScaleAndShift scale_and_shift(const Tensor& weight, const Tensor& modulation);

class ReferenceBackend : public Backend {
 public:
  std::string_view name() const override { return "reference"; }
  bool skips_unread() const override { return false; }
  Tensor linear(const Linear& linear, const Tensor& x) const override;
  Normed rms_norm(const Residual& in, const Tensor& weight, const Tensor& modulation, double epsilon) const override;
  Tensor gelu(const Tensor& x, const Tensor& factor) const override;
  std::vector<Tensor> rotate(std::span<const Tensor> heads, const RotaryAngles& angles) const override;
  Tensor attention(const AttentionOperands& operands) const override;
  std::unique_ptr<Quantizer> quantizer(ErrorSink& sink, std::function<void()> moved) const override;
};

}  // namespace pi0::model
