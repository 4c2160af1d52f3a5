#include "model/backend.h"

#include "model/attention.h"
#include "model/kernels/fast_attention.h"
#include "model/kernels/fast_layers.h"
#include "model/linear.h"

namespace pi0::model {
namespace {

// modeling_gemma.py _gated_residual
Tensor add_up(const Residual& in) {
  if (!in.update.defined()) return in.x;
  return in.gate.defined() ? in.x + in.update * in.gate.to(in.x.scalar_type()) : in.x + in.update;
}

// What a norm multiplies by, and adds unless that is undefined: float32, [W] or [B, 1, W].
struct ScaleAndShift {
  Tensor scale, shift;
};

ScaleAndShift scale_and_shift(const Tensor& weight, const Tensor& modulation) {
  if (!modulation.defined()) return {1.0 + weight.to(at::kFloat), {}};
  const auto parts = modulation.unsqueeze(1).chunk(3, -1);
  return {1 + parts[0].to(at::kFloat), parts[1].to(at::kFloat).contiguous()};
}

// openpi's operations, one by one.
class ReferenceBackend : public Backend {
 public:
  Tensor linear(const MatmulSite& site, const Tensor& x) const override {
    return plain_linear({x, site.weight, site.bias});
  }

  Normed rms_norm(const Residual& in, const Tensor& weight, const Tensor& modulation, double epsilon) const override {
    const Tensor x = add_up(in);
    const auto [scale, shift] = scale_and_shift(weight, modulation);
    const Tensor variance = at::square(x.to(at::kFloat)).mean(-1, /*keepdim=*/true);
    const Tensor normed = x * at::rsqrt(variance + epsilon) * scale;  // float32
    return {x, (shift.defined() ? normed + shift : normed).to(x.scalar_type())};
  }

  Tensor gelu(const Tensor& x, const Tensor& factor) const override {
    const Tensor result = at::gelu(x, "tanh");
    return factor.defined() ? result * factor : result;
  }

  std::pair<Tensor, Tensor> rotate(const Tensor& query, const Tensor& key, const RotaryAngles& angles) const override {
    return {model::rotate(query, angles), model::rotate(key, angles)};
  }

  Tensor attention(const AttentionOperands& operands) const override { return plain_attention(operands); }
};

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(const GemmKernels& kernels) : kernels_(kernels) {}

  Tensor linear(const MatmulSite& site, const Tensor& x) const override {
    return fast_linear(kernels_, x, site.packed, site.bias);
  }

  Normed rms_norm(const Residual& in, const Tensor& weight, const Tensor& modulation, double epsilon) const override {
    const Tensor x = add_up(in);
    const auto [scale, shift] = scale_and_shift(weight, modulation);
    return {x, fast_rms_norm(kernels_, x, scale, shift, epsilon)};
  }

  Tensor gelu(const Tensor& x, const Tensor& factor) const override { return fast_gelu(kernels_, x, factor); }

  std::pair<Tensor, Tensor> rotate(const Tensor& query, const Tensor& key, const RotaryAngles& angles) const override {
    return {fast_rotate(kernels_, query, angles.cos, angles.sin), fast_rotate(kernels_, key, angles.cos, angles.sin)};
  }

  Tensor attention(const AttentionOperands& operands) const override {
    return operands.form == AttentionForm::eager ? fast_attention(kernels_, operands) : plain_attention(operands);
  }

 private:
  const GemmKernels& kernels_;
};

}  // namespace

JoinedSites Backend::join(std::span<MatmulSite* const> sites) const { return {{sites.begin(), sites.end()}}; }

std::vector<Tensor> Backend::linears(const JoinedSites& joined, const Tensor& x) const {
  std::vector<Tensor> results;
  for (const MatmulSite* site : joined.sites) results.push_back(linear(*site, x));
  return results;
}

Tensor Backend::gated_linears(const JoinedSites& joined, const Tensor& x) const {
  const std::vector<Tensor> both = linears(joined, x);
  return gelu(both[0], both[1]);
}

Normed Backend::layer_norm(const Residual& in, const Tensor& weight, const Tensor& bias, double epsilon) const {
  const Tensor x = add_up(in);
  return {x, at::layer_norm(x, {x.size(-1)}, weight, bias, epsilon)};
}

std::shared_ptr<const Backend> make_backend(const Execution& execution) {
  if (execution.gemm != nullptr) return std::make_shared<CpuBackend>(*execution.gemm);
  if (execution.layers != nullptr) return make_device_backend(*execution.layers);
  return std::make_shared<ReferenceBackend>();
}

}  // namespace pi0::model
