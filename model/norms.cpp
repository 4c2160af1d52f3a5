#include "model/norms.h"

#include "model/kernels/fast_layers.h"

namespace pi0::model {
namespace {
constexpr double epsilon = 1e-6;  // of both models
}

RmsNorm::RmsNorm(BuildContext& context, const std::string& path, std::int64_t width, Form form)
    : kernels_(context.execution.gemm) {
  if (form == Form::adaptive) {
    dense_.emplace(context, path + ".dense", width, 3 * width, Bias::present);
  } else {
    weight_ = context.parameter(path + ".weight", {width});
  }
}

Tensor RmsNorm::modulation(const Tensor& condition) const {
  return dense_ ? (*dense_)(condition) : Tensor{};
}

RmsNorm::Output RmsNorm::operator()(const Tensor& x, const Tensor& modulation) const {
  Tensor scale, shift, gate;
  if (dense_) {
    const auto parts = modulation.unsqueeze(1).chunk(3, -1);
    scale = 1 + parts[0].to(at::kFloat);
    shift = parts[1].to(at::kFloat).contiguous();
    gate = parts[2].to(x.scalar_type());
  } else {
    scale = 1.0 + weight_.to(at::kFloat);
  }
  if (kernels_ != nullptr) return {fast_rms_norm(*kernels_, x, scale, shift, epsilon), gate};

  const Tensor variance = at::square(x.to(at::kFloat)).mean(-1, /*keepdim=*/true);
  const Tensor normed = x * at::rsqrt(variance + epsilon) * scale;  // float32
  return {(shift.defined() ? normed + shift : normed).to(x.scalar_type()), gate};
}

LayerNorm::LayerNorm(BuildContext& context, const std::string& path, std::int64_t width)
    : weight_(context.parameter(path + ".weight", {width})),
      bias_(context.parameter(path + ".bias", {width})) {}

Tensor LayerNorm::operator()(const Tensor& x) const {
  return at::layer_norm(x, {x.size(-1)}, weight_, bias_, epsilon);
}

}  // namespace pi0::model
