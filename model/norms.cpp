#include "model/norms.h"

#include "model/backends/reference/reference_backend.h"

namespace pi0::model {
namespace {

constexpr double epsilon = 1e-6;  // of Gemma and SigLIP alike

// Adds up the residual if its addition has a hook; else as it is.
Residual added_by_hook(const Residual& in) {
  if (in.addition == nullptr) return in;
  std::vector<Tensor> terms = {in.x, in.update};
  if (in.gate.defined()) terms.push_back(in.gate);
  return {in.addition->apply(terms, [](std::span<const Tensor> each) {
    return add_up({each[0], each[1], each.size() > 2 ? each[2] : Tensor{}});
  })};
}

}  // namespace

RmsNorm::RmsNorm(const BuildContext& context, std::int64_t width, Form form) : VectorSite(context, width) {
  if (form == Form::adaptive) {
    dense_ = &context.add<Linear>(*this, "dense", width, 3 * width, Bias::present);
  } else {
    weight_ = context.parameter(*this, "weight", {width});
  }
}

Tensor RmsNorm::modulation(const Tensor& condition) const {
  return dense_ != nullptr ? (*dense_)(condition) : Tensor{};
}

// Inputs: the sum, and an adaptive norm's scale and shift. The gate is an input of the next addition.
Tensor RmsNorm::hooked(VectorHook& hook, const Tensor& sum, const Tensor& modulation) const {
  std::vector<Tensor> inputs = {sum};
  Tensor gate;
  if (dense_ != nullptr) {
    std::vector<Tensor> parts = modulation.chunk(3, -1);
    inputs.insert(inputs.end(), {parts[0], parts[1]});
    gate = parts[2];
  }
  return hook.apply(inputs, [&](std::span<const Tensor> in) {
    return backend.rms_norm({in[0]}, weight_, gate.defined() ? at::cat({in[1], in[2], gate}, -1) : gate, epsilon).x;
  });
}

RmsNorm::Output RmsNorm::operator()(const Residual& in, const Tensor& modulation) const {
  const Residual x = added_by_hook(in);
  Output result;
  if (VectorHook* const hook = begin()) {
    result.sum = add_up(x);
    result.x = hooked(*hook, result.sum, modulation);
  } else {
    const Normed normed = backend.rms_norm(x, weight_, modulation, epsilon);
    result = {normed.sum, normed.x, {}};
  }
  if (dense_ != nullptr) result.gate = modulation.unsqueeze(1).chunk(3, -1)[2];
  return result;
}

LayerNorm::LayerNorm(const BuildContext& context, std::int64_t width)
    : VectorSite(context, width),
      weight_(context.parameter(*this, "weight", {width})),
      bias_(context.parameter(*this, "bias", {width})) {}

Normed LayerNorm::operator()(const Residual& in) const {
  const Residual x = added_by_hook(in);
  VectorHook* const hook = begin();
  if (hook == nullptr) return backend.layer_norm(x, weight_, bias_, epsilon);
  const Tensor sum = add_up(x);
  return {sum, hook->apply({&sum, 1}, [&](std::span<const Tensor> inputs) {
            return backend.layer_norm({inputs[0]}, weight_, bias_, epsilon).x;
          })};
}

}  // namespace pi0::model
