#include "model/ordered_linear.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "model/backends/linear_result.h"

namespace pi0::model {
namespace {

constexpr std::int64_t ordered_products_per_task = 1 << 14;

void check_ordered(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const auto is_float = [](const at::Tensor& values) { return values.scalar_type() == at::kFloat && values.is_cpu(); };
  const bool fits = x.dim() > 0 && weight.dim() == 2 && x.size(-1) == weight.size(1) && is_float(x) && is_float(weight);
  TORCH_CHECK(fits, "ordered_linear: found x ", x.scalar_type(), " ", x.sizes(), " and weight ", weight.scalar_type(),
              " ", weight.sizes(), ", expected float32 [..., In] and [Out, In]");
  TORCH_CHECK(!bias.defined() || (is_float(bias) && bias.dim() == 1 && bias.size(0) == weight.size(0)),
              "ordered_linear: found a bias ", bias.scalar_type(), " ", bias.sizes(), ", expected float32 [Out] of ",
              weight.size(0));
}

}  // namespace

at::Tensor encode_operands(const at::Tensor& values) {
  const at::Tensor encoded = at::empty_like(values, at::kFloat, at::MemoryFormat::Contiguous).copy_(values);
  auto* const data = encoded.mutable_data_ptr<float>();
  at::parallel_for(0, encoded.numel(), ordered_products_per_task,
                   [&](std::int64_t begin, std::int64_t end) { formats::encode_operands(data + begin, end - begin); });
  return encoded.to(at::kBFloat16);
}

at::Tensor ordered_linear(const formats::Accumulator& accumulator, const at::Tensor& x, const at::Tensor& weight,
                          const at::Tensor& bias) {
  check_ordered(x, weight, bias);
  if (!accumulator.is_ordered()) return at::linear(x, weight, bias);
  const bool encodes = encodes_operands(accumulator);
  const auto operand = [encodes](const at::Tensor& values) {
    return encodes ? encode_operands(values).to(at::kFloat) : values.contiguous();
  };
  const at::Tensor inputs = operand(x), weights = operand(weight);
  const at::Tensor first = encodes && bias.defined() ? operand(bias) : at::zeros({weight.size(0)});
  const std::int64_t in = weight.size(1), out = weight.size(0);
  at::Tensor result = empty_result(x, out);
  const float *const x_data = inputs.const_data_ptr<float>(), *const weight_data = weights.const_data_ptr<float>();
  const auto* const first_data = first.const_data_ptr<float>();
  auto* const result_data = result.mutable_data_ptr<float>();
  const std::int64_t grain = std::max<std::int64_t>(1, ordered_products_per_task / std::max<std::int64_t>(1, in));
  at::parallel_for(0, result.numel(), grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t row = i / out, column = i % out;
      result_data[i] =
          formats::ordered_sum(accumulator, x_data + row * in, weight_data + column * in, in, first_data[column]);
    }
  });
  return encodes || !bias.defined() ? result : result.add_(bias);
}

}  // namespace pi0::model
