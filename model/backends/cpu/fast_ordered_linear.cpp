#include "model/backends/cpu/fast_ordered_linear.h"

#include "model/backends/linear_result.h"
#include "model/ordered_linear.h"

namespace pi0::model {

using at::Tensor;

PackedWeight pack_encoded_weight(const Tensor& weight) {
  const Tensor encoded = encode_operands(weight), narrow = encoded.to(at::kFloat8_e4m3fn);
  return pack_weight(at::equal(narrow.to(at::kBFloat16), encoded) ? narrow : encoded);
}

Tensor fast_ordered_linear(const GemmKernels& kernels, const formats::Accumulator& accumulator, const Tensor& x,
                           const Tensor& weight, const Tensor& bias) {
  if (x.numel() == 0 || weight.numel() == 0) return ordered_linear(accumulator, x, weight, bias);  // no panels
  const bool encodes = encodes_operands(accumulator);
  const PackedWeight packed = encodes ? pack_encoded_weight(weight) : pack_weight(weight);
  const PackedInput input =
      pack_input(kernels, x, Lane::float32, encodes ? ChangeRow(formats::encode_operands) : ChangeRow{});
  Product product{input, packed, accumulator};
  Tensor terms;
  if (bias.defined()) (encodes ? product.first : terms) = padded_terms(encodes ? encode_operands(bias) : bias, packed);
  const auto add_bias = [&](const Strip& strip) {
    kernels.add_terms(strip.sums[0], strip.row_count, terms.const_data_ptr<float>() + strip.first_column);
  };
  Tensor result = empty_result(x, packed.out);
  multiply(kernels, {product}, terms.defined() ? std::function<void(const Strip&)>(add_bias) : nullptr, result);
  return result;
}

}  // namespace pi0::model
