#include "model/norms.h"

namespace pi0::model {
namespace {
constexpr double epsilon = 1e-6;  // of Gemma and SigLIP alike
}

RmsNorm::RmsNorm(const BuildContext& context, std::int64_t width, Form form) : backend_(context.backend) {
  if (form == Form::adaptive) {
    dense_ = &context.add<Linear>(*this, "dense", width, 3 * width, Bias::present);
  } else {
    weight_ = context.parameter(*this, "weight", {width});
  }
}

Tensor RmsNorm::modulation(const Tensor& condition) const {
  return dense_ != nullptr ? (*dense_)(condition) : Tensor{};
}

RmsNorm::Output RmsNorm::operator()(const Residual& x, const Tensor& modulation) const {
  const Normed normed = backend_.rms_norm(x, weight_, modulation, epsilon);
  if (dense_ == nullptr) return {normed.sum, normed.x, {}};
  return {normed.sum, normed.x, modulation.unsqueeze(1).chunk(3, -1)[2]};
}

LayerNorm::LayerNorm(const BuildContext& context, std::int64_t width)
    : weight_(context.parameter(*this, "weight", {width})),
      bias_(context.parameter(*this, "bias", {width})),
      backend_(context.backend) {}

Normed LayerNorm::operator()(const Residual& x) const { return backend_.layer_norm(x, weight_, bias_, epsilon); }

}  // namespace pi0::model
