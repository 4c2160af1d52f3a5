// A model's layers with a device's kernels. What those do not take, sizes that are no multiple of
// eight or keys beyond their most, runs as the reference's operations do.
#include <c10/core/DeviceGuard.h>

#include <algorithm>

#include "model/attention.h"
#include "model/backend.h"
#include "model/device_stream.h"
#include "model/kernels/device_layer_kernels.h"
#include "model/linear.h"

namespace pi0::model {
namespace {

// Kernels count in int, with room for a step beyond.
int count(std::int64_t number) {
  TORCH_CHECK(number <= std::int64_t{1} << 30, "device kernels: found ", number,
              " values at once, expected at most 2^30");
  return static_cast<int>(number);
}
bool in_eights(std::int64_t number) { return number % 8 == 0; }
bool in_bfloat16(const Tensor& tensor) { return tensor.scalar_type() == at::kBFloat16; }

const void* data_of(const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }
const std::uint16_t* halves_of(const Tensor& tensor) { return static_cast<const std::uint16_t*>(data_of(tensor)); }

// [B, H, L, D] with dense vectors that lie at multiples of eight values.
Tensor as_head_rows(const Tensor& heads) {
  if (!heads.defined()) return heads;
  const bool fits = heads.stride(3) == 1 && in_eights(heads.stride(0)) && in_eights(heads.stride(1)) &&
                    in_eights(heads.stride(2)) && in_eights(heads.storage_offset());
  return fits ? heads : heads.contiguous();
}

HeadRows head_rows(const Tensor& heads) {
  if (!heads.defined()) return {};
  return {halves_of(heads), count(heads.size(2)), heads.stride(0), heads.stride(1), heads.stride(2)};
}

class DeviceBackend : public Backend {
 public:
  explicit DeviceBackend(const DeviceLayers& layers, std::shared_ptr<const Backend> rest)
      : layers_(layers), rest_(std::move(rest)) {}

  Tensor linear(const MatmulSite& site, const Tensor& x) const override {
    if (!takes_few_rows(site, x)) return rest_->linear(site, x);
    return few_rows({{&site}}, x, /*is_gated=*/false).front();
  }

  JoinedSites join(std::span<MatmulSite* const> sites) const override {
    JoinedSites joined = Backend::join(sites);
    std::vector<Tensor> weights, biases;
    for (const MatmulSite* site : sites) {
      weights.push_back(site->weight);
      if (site->bias.defined()) biases.push_back(site->bias);
    }
    TORCH_INTERNAL_ASSERT(biases.empty() || biases.size() == sites.size());
    joined.weight = at::cat(weights);
    if (!biases.empty()) joined.bias = at::cat(biases);
    std::int64_t first = 0;
    for (MatmulSite* site : sites) {
      site->weight = joined.weight.narrow(0, first, site->out_features);
      if (site->bias.defined()) site->bias = joined.bias.narrow(0, first, site->out_features);
      first += site->out_features;
    }
    return joined;
  }

  std::vector<Tensor> linears(const JoinedSites& joined, const Tensor& x) const override {
    if (takes_few_rows(*joined.sites.front(), x)) return few_rows(joined, x, /*is_gated=*/false);
    const Tensor all = at::linear(x, joined.weight, joined.bias);
    std::vector<std::int64_t> sizes;
    for (const MatmulSite* site : joined.sites) sizes.push_back(site->out_features);
    return all.split_with_sizes(sizes, -1);
  }

  Tensor gated_linears(const JoinedSites& joined, const Tensor& x) const override {
    TORCH_INTERNAL_ASSERT(!joined.bias.defined());
    if (takes_few_rows(*joined.sites.front(), x)) return few_rows(joined, x, /*is_gated=*/true).front();
    return Backend::gated_linears(joined, x);
  }

  Normed rms_norm(const Residual& in, const Tensor& weight, const Tensor& modulation, double epsilon) const override {
    const std::int64_t width = in.x.size(-1);
    if (!takes_norm(in)) return rest_->rms_norm(in, weight, modulation, epsilon);
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

  Normed layer_norm(const Residual& in, const Tensor& weight, const Tensor& bias, double epsilon) const override {
    if (!takes_norm(in)) return rest_->layer_norm(in, weight, bias, epsilon);
    NormCall call{};
    call.kind = NormKind::layer;
    call.parameters_in_bfloat16 = in_bfloat16(weight);
    call.scale = data_of(weight);
    call.shift = data_of(bias);
    return norm(call, in, epsilon);
  }

  Tensor gelu(const Tensor& x, const Tensor& factor) const override {
    const std::int64_t columns = x.size(-1);
    const std::int64_t stride = x.dim() > 1 ? x.stride(-2) : columns;
    const auto takes = [&](const Tensor& rows) {
      return rows.stride(-1) == 1 && in_eights(stride) && in_eights(rows.storage_offset()) &&
             (rows.dim() == 1 || rows.stride(-2) == stride) &&
             (rows.dim() < 3 || rows.stride(0) == rows.size(1) * stride);
    };
    if (x.dim() > 3 || !in_eights(columns) || !takes(x) || (factor.defined() && !takes(factor))) {
      return rest_->gelu(x, factor);
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

  std::pair<Tensor, Tensor> rotate(const Tensor& query, const Tensor& key, const RotaryAngles& angles) const override {
    const c10::DeviceGuard guard(query.device());
    const Tensor cos = angles.cos.contiguous(), sin = angles.sin.contiguous();
    const Tensor* const operands[2] = {&query, &key};
    RotateCall calls[2];
    Tensor turned[2];
    for (int i = 0; i < 2; ++i) {
      const Tensor& heads = *operands[i];
      TORCH_INTERNAL_ASSERT(heads.stride(3) == 1);
      count(heads.numel());
      turned[i] = at::empty(heads.sizes(), heads.options());
      calls[i] = {.in_bfloat16 = in_bfloat16(heads),
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
                  .out = turned[i].mutable_data_ptr()};
    }
    layers_.rotate(calls, 2, current_stream(query.device()));
    return {turned[0], turned[1]};
  }

  Tensor attention(const AttentionOperands& in) const override {
    const std::int64_t prefix = in.prefix_key.defined() ? in.prefix_key.size(2) : 0;
    const std::int64_t keys = prefix + in.key.size(2);
    if (!in_bfloat16(in.query) || !in_eights(in.query.size(3)) || keys > AttentionCall::most_keys) {
      return rest_->attention(in);
    }
    const c10::DeviceGuard guard(in.query.device());
    const std::int64_t samples = in.query.size(0), heads = in.query.size(1), tokens = in.query.size(2);
    const std::int64_t groups = in.key.size(1);
    const Tensor query = as_head_rows(in.query), key = as_head_rows(in.key), value = as_head_rows(in.value);
    const Tensor prefix_key = as_head_rows(in.prefix_key), prefix_value = as_head_rows(in.prefix_value);
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

  bool batches_cameras() const override { return true; }

 private:
  static bool takes_few_rows(const MatmulSite& site, const Tensor& x) {
    constexpr std::int64_t most_rows = 64;  // beyond, libtorch's products are faster
    return in_bfloat16(x) && in_bfloat16(site.weight) && in_eights(site.in_features) &&
           x.numel() <= most_rows * site.in_features;
  }

  // Of one site or some that share x; a result for each, or for all where they are gated.
  std::vector<Tensor> few_rows(const JoinedSites& joined, const Tensor& x, bool is_gated) const {
    const c10::DeviceGuard guard(x.device());
    const Tensor rows = x.contiguous();
    const std::int64_t in = x.size(-1);
    TORCH_INTERNAL_ASSERT(joined.sites.size() <= FewRowsCall::most_parts);
    FewRowsCall call{};
    call.rows = count(rows.numel() / in);
    call.in = count(in);
    call.x = halves_of(rows);
    call.gated = is_gated;
    std::vector<Tensor> results;
    for (const MatmulSite* site : joined.sites) {
      FewRowsCall::Part& part = call.parts[call.part_count++];
      part.weight = halves_of(site->weight);
      part.bias = halves_of(site->bias);
      part.out = count(site->out_features);
      if (is_gated && !results.empty()) continue;
      std::vector<std::int64_t> shape = x.sizes().vec();
      shape.back() = site->out_features;
      results.push_back(at::empty(shape, x.options()));
      part.result = static_cast<std::uint16_t*>(results.back().mutable_data_ptr());
    }
    layers_.multiply_few_rows(call, current_stream(x.device()));
    return results;
  }

  static bool takes_norm(const Residual& in) {
    return in_eights(in.x.size(-1)) && in.x.size(-1) <= NormCall::most_width;
  }

  Normed norm(NormCall call, const Residual& in, double epsilon) const {
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

  const DeviceLayers& layers_;
  const std::shared_ptr<const Backend> rest_;  // for what the kernels do not take
};

}  // namespace

std::shared_ptr<const Backend> make_device_backend(const DeviceLayers& layers) {
  return std::make_shared<DeviceBackend>(layers, make_backend({}));
}

}  // namespace pi0::model
