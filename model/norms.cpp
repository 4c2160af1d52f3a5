#include "model/norms.h"

namespace pi0::model {
namespace {
constexpr double epsilon = 1e-6;  // of both models
}

RmsNorm::RmsNorm(BuildContext& context, const std::string& path, std::int64_t width, Form form)
    : backend_(context.sites.backend()) {
  if (form == Form::adaptive) {
    dense_.emplace(context, path + ".dense", width, 3 * width, Bias::present);
  } else {
    weight_ = context.parameter(path + ".weight", {width});
  }
}

Tensor RmsNorm::modulation(const Tensor& condition) const { return dense_ ? (*dense_)(condition) : Tensor{}; }

RmsNorm::Output RmsNorm::operator()(const Residual& x, const Tensor& modulation) const {
  const Normed normed = backend_.rms_norm(x, weight_, modulation, epsilon);
  if (!dense_) return {normed.sum, normed.x, {}};
  return {normed.sum, normed.x, modulation.unsqueeze(1).chunk(3, -1)[2]};
}

LayerNorm::LayerNorm(BuildContext& context, const std::string& path, std::int64_t width)
    : backend_(context.sites.backend()),
      weight_(context.parameter(path + ".weight", {width})),
      bias_(context.parameter(path + ".bias", {width})) {}

Normed LayerNorm::operator()(const Residual& x) const { return backend_.layer_norm(x, weight_, bias_, epsilon); }

}  // namespace pi0::model
