#include "model/backends/cuda/cuda_backend.h"

#include <c10/core/DeviceGuard.h>

#include <algorithm>

#include "model/attention.h"
#include "model/backends/cuda/cuda_quantizer.h"
#include "model/backends/cuda/device_stream.h"
#include "model/backends/linear_result.h"
#include "model/linear.h"

namespace pi0::model {
namespace {

// Kernels count in int; the limit leaves room for one step past the end.
int count(std::int64_t number) {
  TORCH_CHECK(number <= std::int64_t{1} << 30, "device kernels: found ", number,
              " values at once, expected at most 2^30");
  return static_cast<int>(number);
}
bool divisible_by_8(std::int64_t number) { return number % 8 == 0; }
bool in_bfloat16(const Tensor& tensor) { return tensor.scalar_type() == at::kBFloat16; }

const void* data_of(const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }
const std::uint16_t* halves_of(const Tensor& tensor) { return static_cast<const std::uint16_t*>(data_of(tensor)); }

// [B, H, L, D] with contiguous vectors of D values, aligned to eight values.
Tensor as_head_rows(const Tensor& heads) {
  if (!heads.defined()) return heads;
  const bool fits = heads.stride(3) == 1 && divisible_by_8(heads.stride(0)) && divisible_by_8(heads.stride(1)) &&
                    divisible_by_8(heads.stride(2)) && divisible_by_8(heads.storage_offset());
  return fits ? heads : heads.contiguous();
}

HeadRows head_rows(const Tensor& heads) {
  if (!heads.defined()) return {};
  return {halves_of(heads), count(heads.size(2)), heads.stride(0), heads.stride(1), heads.stride(2)};
}

bool takes_few_rows(const Linear& linear, const Tensor& x) {
  constexpr std::int64_t most_rows = 64;  // above this, LibTorch's products are faster
  return in_bfloat16(x) && in_bfloat16(linear.weight()) && divisible_by_8(linear.in_features) &&
         x.numel() <= most_rows * linear.in_features;
}

bool takes_norm(const Residual& in) { return divisible_by_8(in.x.size(-1)) && in.x.size(-1) <= NormCall::most_width; }

}  // namespace

Tensor CudaBackend::linear(const Linear& linear, const Tensor& x) const {
  if (!takes_few_rows(linear, x)) return ReferenceBackend::linear(linear, x);
  const Linear* const one = &linear;
  return few_rows({&one, 1}, x, /*is_gated=*/false).front();
}

JoinedWeights CudaBackend::join(std::span<Linear* const> linears) const {
  std::vector<Tensor> weights, biases;
  for (const Linear* linear : linears) {
    weights.push_back(linear->weight());
    if (linear->bias().defined()) biases.push_back(linear->bias());
  }
  TORCH_INTERNAL_ASSERT(biases.empty() || biases.size() == linears.size());
  const JoinedWeights joined{at::cat(weights), biases.empty() ? Tensor{} : at::cat(biases)};
  std::int64_t first = 0;
  for (Linear* linear : linears) {
    const auto part_of = [&](const Tensor& all) {
      return all.defined() ? all.narrow(0, first, linear->out_features) : all;
    };
    linear->move_parameters(part_of(joined.weight), part_of(joined.bias));
    first += linear->out_features;
  }
  return joined;
}

std::vector<Tensor> CudaBackend::linears(LinearSpan linears, const JoinedWeights& joined, const Tensor& x) const {
  if (takes_few_rows(*linears.front(), x)) return few_rows(linears, x, /*is_gated=*/false);
  const Tensor all = at::linear(x, joined.weight, joined.bias);
  std::vector<std::int64_t> sizes;
  for (const Linear* linear : linears) sizes.push_back(linear->out_features);
  return all.split_with_sizes(sizes, -1);
}

Tensor CudaBackend::gated_linears(LinearSpan linears, const JoinedWeights& joined, const Tensor& x) const {
  TORCH_INTERNAL_ASSERT(!joined.bias.defined());
  if (takes_few_rows(*linears.front(), x)) return few_rows(linears, x, /*is_gated=*/true).front();
  return Backend::gated_linears(linears, joined, x);
}

Normed CudaBackend::rms_norm(const Residual& in, const Tensor& weight, const Tensor& modulation, double epsilon) const {
  const std::int64_t width = in.x.size(-1);
  if (!takes_norm(in)) return ReferenceBackend::rms_norm(in, weight, modulation, epsilon);
  const Tensor parameters = modulation.defined() ? modulation.contiguous() : weight;
  NormCall call{};
  call.kind = NormKind::rms;
  call.parameters_in_bfloat16 = in_bfloat16(parameters);
  call.scale = data_of(parameters);
  if (modulation.defined()) {
    call.shift = static_cast<const char*>(call.scale) + width * parameters.element_size();
    call.sample_stride = parameters.size(0) > 1 ? parameters.size(1) : 0;
  }
  return norm(call, in, epsilon);
}

Normed CudaBackend::layer_norm(const Residual& in, const Tensor& weight, const Tensor& bias, double epsilon) const {
  if (!takes_norm(in)) return ReferenceBackend::layer_norm(in, weight, bias, epsilon);
  NormCall call{};
  call.kind = NormKind::layer;
  call.parameters_in_bfloat16 = in_bfloat16(weight);
  call.scale = data_of(weight);
  call.shift = data_of(bias);
  return norm(call, in, epsilon);
}

Tensor CudaBackend::gelu(const Tensor& x, const Tensor& factor) const {
  const std::int64_t columns = x.size(-1);
  const std::int64_t stride = x.dim() > 1 ? x.stride(-2) : columns;
  const auto takes = [&](const Tensor& rows) {
    return rows.stride(-1) == 1 && divisible_by_8(stride) && divisible_by_8(rows.storage_offset()) &&
           (rows.dim() == 1 || rows.stride(-2) == stride) &&
           (rows.dim() < 3 || rows.stride(0) == rows.size(1) * stride);
  };
  if (x.dim() > 3 || !divisible_by_8(columns) || !takes(x) || (factor.defined() && !takes(factor))) {
    return ReferenceBackend::gelu(x, factor);
  }
  const c10::DeviceGuard guard(x.device());
  const Tensor out = at::empty(x.sizes(), x.options());
  count(x.numel());
  layers_.gelu({.in_bfloat16 = in_bfloat16(x),
                .rows = count(x.numel() / columns),
                .columns = count(columns),
                .x = data_of(x),
                .factor = data_of(factor),
                .row_stride = stride,
                .out = out.mutable_data_ptr()},
               current_stream(x.device()));
  return out;
}

std::vector<Tensor> CudaBackend::rotate(std::span<const Tensor> all, const RotaryAngles& angles) const {
  constexpr std::size_t most = 2;  // in one launch
  TORCH_INTERNAL_ASSERT(!all.empty() && all.size() <= most);
  const c10::DeviceGuard guard(all.front().device());
  const Tensor cos = angles.cos.contiguous(), sin = angles.sin.contiguous();
  RotateCall calls[most];
  std::vector<Tensor> rotated;
  for (const Tensor& heads : all) {
    TORCH_INTERNAL_ASSERT(heads.stride(3) == 1);
    count(heads.numel());
    Tensor& out = rotated.emplace_back(at::empty(heads.sizes(), heads.options()));
    calls[rotated.size() - 1] = {.in_bfloat16 = in_bfloat16(heads),
                                 .samples = count(heads.size(0)),
                                 .heads = count(heads.size(1)),
                                 .tokens = count(heads.size(2)),
                                 .size = count(heads.size(3)),
                                 .in = data_of(heads),
                                 .sample_stride = heads.stride(0),
                                 .head_stride = heads.stride(1),
                                 .token_stride = heads.stride(2),
                                 .cos = data_of(cos),
                                 .sin = data_of(sin),
                                 .out = out.mutable_data_ptr()};
  }
  layers_.rotate(calls, static_cast<int>(rotated.size()), current_stream(all.front().device()));
  return rotated;
}

Tensor CudaBackend::attention(const AttentionOperands& in) const {
  const LayerKv prefix = in.prefix != nullptr ? *in.prefix : LayerKv{};
  const std::int64_t keys = (in.prefix != nullptr ? prefix.key.size(2) : 0) + in.key.size(2);
  if (in.softmax != nullptr || !in_bfloat16(in.query) || !divisible_by_8(in.query.size(3)) ||
      keys > AttentionCall::most_keys) {
    return ReferenceBackend::attention(in);
  }
  const c10::DeviceGuard guard(in.query.device());
  const std::int64_t samples = in.query.size(0), heads = in.query.size(1), tokens = in.query.size(2);
  const std::int64_t groups = in.key.size(1);
  const Tensor query = as_head_rows(in.query), key = as_head_rows(in.key), value = as_head_rows(in.value);
  const Tensor prefix_key = as_head_rows(prefix.key), prefix_value = as_head_rows(prefix.value);
  const Tensor mask = in.mask.defined() ? in.mask.contiguous() : in.mask;
  const std::int64_t score_stride = (keys + 1) / 2 * 2;
  const Tensor scores = at::empty({samples, heads, tokens, score_stride}, in.query.options().dtype(at::kFloat));
  const Tensor out = at::empty({samples, tokens, heads, in.query.size(3)}, in.query.options());
  layers_.attend({.rounding = in.form == AttentionForm::eager ? ScoreRounding::each_step : ScoreRounding::weights,
                  .samples = count(samples),
                  .heads = count(heads),
                  .groups = count(groups),
                  .size = count(in.query.size(3)),
                  .query = head_rows(query),
                  .keys = {head_rows(prefix_key), head_rows(key)},
                  .values = {head_rows(prefix_value), head_rows(value)},
                  .scale = static_cast<float>(in.scale),
                  .mask = static_cast<const float*>(data_of(mask)),
                  .scores = scores.mutable_data_ptr<float>(),
                  .score_stride = count(score_stride),
                  .out = static_cast<std::uint16_t*>(out.mutable_data_ptr())},
                 current_stream(in.query.device()));
  return out.transpose(1, 2);
}

// Products of linears that share x: a result for each, or a single one if they are gated.
std::vector<Tensor> CudaBackend::few_rows(LinearSpan linears, const Tensor& x, bool is_gated) const {
  const c10::DeviceGuard guard(x.device());
  const Tensor rows = x.contiguous();
  const std::int64_t in = x.size(-1);
  TORCH_INTERNAL_ASSERT(linears.size() <= FewRowsCall::most_parts);
  FewRowsCall call{};
  call.rows = count(rows.numel() / in);
  call.in = count(in);
  call.x = halves_of(rows);
  call.gated = is_gated;
  std::vector<Tensor> results;
  for (const Linear* linear : linears) {
    FewRowsCall::Part& part = call.parts[call.part_count++];
    part.weight = halves_of(linear->weight());
    part.bias = halves_of(linear->bias());
    part.out = count(linear->out_features);
    if (is_gated && !results.empty()) continue;
    results.push_back(empty_result(x, linear->out_features));
    part.result = static_cast<std::uint16_t*>(results.back().mutable_data_ptr());
  }
  layers_.multiply_few_rows(call, current_stream(x.device()));
  return results;
}

Normed CudaBackend::norm(NormCall call, const Residual& in, double epsilon) const {
  const c10::DeviceGuard guard(in.x.device());
  const Tensor x = in.x.contiguous(), update = in.update.defined() ? in.update.contiguous() : in.update;
  const std::int64_t width = x.size(-1);
  const Normed result{in.update.defined() ? at::empty_like(x) : x, at::empty_like(x)};
  call.in_bfloat16 = in_bfloat16(x);
  call.rows = count(x.numel() / width);
  call.width = count(width);
  call.rows_per_sample = count(x.size(-2));
  call.epsilon = static_cast<float>(epsilon);
  call.x = data_of(x);
  call.update = data_of(update);
  call.sum = result.sum.mutable_data_ptr();
  call.out = result.x.mutable_data_ptr();
  if (in.gate.defined()) {
    call.gate = data_of(in.gate);
    call.gate_in_bfloat16 = in_bfloat16(in.gate);
    call.gate_stride = in.gate.size(0) > 1 ? in.gate.stride(0) : 0;
  }
  layers_.norm(call, current_stream(x.device()));
  return result;
}

std::unique_ptr<Quantizer> CudaBackend::quantizer(ErrorSink& sink, std::function<void()> moved) const {
  return std::make_unique<CudaQuantizer>(*this, rounding_, sink, std::move(moved));
}

}  // namespace pi0::model
