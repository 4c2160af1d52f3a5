#include "model/backends/cpu/fast_linear.h"

#include <array>

#include "model/backends/linear_result.h"

namespace pi0::model {
namespace {

using at::Tensor;

// x in the lanes that were needed so far.
class Inputs {
 public:
  Inputs(const GemmKernels& kernels, const Tensor& x) : kernels_(kernels), x_(x) {}

  const PackedInput& in_lane_of(const PackedWeight& weight) {
    const bool pairs =
        kernels_.has_pairs && x_.scalar_type() == at::kBFloat16 && formats::fits_bfloat16(weight.format());
    PackedInput& input = packed_[pairs ? 1 : 0];
    if (!input.lanes.defined()) {
      input = pack_input(kernels_, x_, pairs ? Lane::bfloat16_pair : Lane::float32, {});
    }
    return input;
  }

 private:
  const GemmKernels& kernels_;
  const Tensor& x_;
  std::array<PackedInput, 2> packed_;
};

Tensor terms_of(const FastLinear& linear) {
  return linear.bias.defined() ? padded_terms(linear.bias, linear.weight) : Tensor{};
}

void add_terms(const GemmKernels& kernels, const Strip& strip, std::size_t product, const Tensor& terms) {
  if (!terms.defined()) return;
  kernels.add_terms(strip.sums[product], strip.row_count, terms.const_data_ptr<float>() + strip.first_column);
}

Tensor multiplied(const GemmKernels& kernels, const Tensor& x, Inputs& inputs, const FastLinear& linear) {
  Tensor result = empty_result(x, linear.weight.out);
  const Tensor terms = terms_of(linear);
  multiply(
      kernels, {{inputs.in_lane_of(linear.weight), linear.weight}},
      [&](const Strip& strip) { add_terms(kernels, strip, 0, terms); }, result);
  return result;
}

}  // namespace

std::vector<Tensor> fast_linears(const GemmKernels& kernels, const Tensor& x, const std::vector<FastLinear>& linears) {
  Inputs inputs(kernels, x);
  std::vector<Tensor> results;
  for (const FastLinear& linear : linears) results.push_back(multiplied(kernels, x, inputs, linear));
  return results;
}

Tensor fast_linear(const GemmKernels& kernels, const Tensor& x, const FastLinear& linear) {
  return fast_linears(kernels, x, {linear}).front();
}

Tensor fast_gated_linears(const GemmKernels& kernels, const Tensor& x, const FastLinear& gate, const FastLinear& up) {
  Inputs inputs(kernels, x);
  Tensor result = padded_result(x, gate.weight.out);
  const std::array<Tensor, 2> terms = {terms_of(gate), terms_of(up)};
  const bool in_bfloat16 = x.scalar_type() == at::kBFloat16;
  multiply(
      kernels, {{inputs.in_lane_of(gate.weight), gate.weight}, {inputs.in_lane_of(up.weight), up.weight}},
      [&](const Strip& strip) {
        for (std::size_t i = 0; i < terms.size(); ++i) add_terms(kernels, strip, i, terms[i]);
        kernels.layers.gelu_of_sums(strip.sums[0], strip.sums[1], strip.row_count * panel_width, in_bfloat16);
      },
      result);
  return result;
}

}  // namespace pi0::model
