#include "model/backends/cpu/cpu_backend.h"

#include "model/backends/cpu/cpu_quantizer.h"
#include "model/backends/cpu/fast_attention.h"
#include "model/backends/cpu/fast_layers.h"
#include "model/backends/cpu/fast_linear.h"
#include "model/linear.h"

namespace pi0::model {

namespace {

FastLinear fast(const Linear& linear) { return {packed_weight_of(linear), linear.bias()}; }

}  // namespace

PackedWeight packed_weight_of(const Linear& linear) {
  return {linear.weight(), linear.out_features, linear.in_features};
}

Tensor CpuBackend::first_row(const Linear& linear) const {
  return linear.weight().select(0, 0).select(1, 0).flatten().narrow(0, 0, linear.in_features);
}

Tensor CpuBackend::linear(const Linear& linear, const Tensor& x) const {
  return fast_linear(kernels_, x, fast(linear));
}

std::vector<Tensor> CpuBackend::linears(LinearSpan linears, const JoinedWeights&, const Tensor& x) const {
  std::vector<FastLinear> all;
  for (const Linear* each : linears) all.push_back(fast(*each));
  return fast_linears(kernels_, x, all);
}

Tensor CpuBackend::gated_linears(LinearSpan linears, const JoinedWeights&, const Tensor& x) const {
  return fast_gated_linears(kernels_, x, fast(*linears[0]), fast(*linears[1]));
}

Normed CpuBackend::rms_norm(const Residual& in, const Tensor& weight, const Tensor& modulation, double epsilon) const {
  const Tensor x = add_up(in);
  const auto [scale, shift] = scale_and_shift(weight, modulation);
  return {x, fast_rms_norm(kernels_, x, scale, shift, epsilon)};
}

Tensor CpuBackend::gelu(const Tensor& x, const Tensor& factor) const { return fast_gelu(kernels_, x, factor); }

std::vector<Tensor> CpuBackend::rotate(std::span<const Tensor> heads, const RotaryAngles& angles) const {
  std::vector<Tensor> rotated;
  for (const Tensor& each : heads) rotated.push_back(fast_rotate(kernels_, each, angles.cos, angles.sin));
  return rotated;
}

Tensor CpuBackend::attention(const AttentionOperands& operands) const {
  // Of SigLIP's sizes LibTorch's own is faster unless pairs are multiplied.
  const bool has_pairs = kernels_.has_pairs && operands.query.scalar_type() == at::kBFloat16;
  const bool is_fast = operands.softmax == nullptr && (operands.form == AttentionForm::eager || has_pairs);
  return is_fast ? fast_attention(kernels_, operands) : plain_attention(operands);
}

std::unique_ptr<Quantizer> CpuBackend::quantizer(ErrorSink& sink, std::function<void()>) const {
  return std::make_unique<CpuQuantizer>(*this, sink);
}

std::shared_ptr<const Backend> cpu_backend(InstructionSet set) {
  return std::make_shared<const CpuBackend>(gemm_kernels(set));
}

}  // namespace pi0::model
