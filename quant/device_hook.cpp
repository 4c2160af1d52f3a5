#include "quant/device_hook.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <type_traits>
#include <utility>

#include "model/device_stream.h"
#include "model/format_dtype.h"
#include "quant/device_rounding.h"

namespace pi0::quant {
namespace {

using model::Tensor;

static_assert(std::is_trivially_copyable_v<DeviceErrors::Record>);

// A dtype that a format's values fit in and that matrix units multiply exactly.
at::ScalarType operand_dtype(Format format) {
  return formats::fits_bfloat16(format) ? at::kBFloat16 : model::dtype_of(format);
}

// rows · weightᵀ in float32, [R, Out].
Tensor product(const Tensor& rows, const Tensor& weight) {
  const at::ScalarType dtype = rows.scalar_type();
  if (rows.is_cuda() && dtype != at::kFloat && dtype == weight.scalar_type())
    return at::mm(rows, weight.t(), at::kFloat);
  return at::mm(rows.to(at::kFloat), weight.to(at::kFloat).t());
}

Tensor float_terms(const Tensor& bias) { return bias.defined() ? bias.to(at::kFloat).contiguous() : bias; }

const float* terms_of(const Tensor& terms) { return terms.defined() ? terms.const_data_ptr<float>() : nullptr; }

}  // namespace

DeviceErrors::DeviceErrors(at::Device device, std::function<void()> moved)
    : device_(device), moved_(std::move(moved)) {}

std::size_t DeviceErrors::add_site(std::size_t entry, OverflowNote& overflow) {
  sites_.push_back({.entry = entry, .overflow = &overflow});
  return sites_.size() - 1;
}

DeviceErrors::Slot DeviceErrors::slot(std::size_t site, std::int64_t samples) {
  const auto stride = static_cast<std::int64_t>(sites_.size() * sizeof(Record));
  const std::int64_t known = records_.defined() ? records_.size(0) : 0;
  if (samples > known) {
    const c10::InferenceMode inference;
    const Tensor more = at::zeros({samples, stride}, at::device(device_).dtype(at::kByte));
    if (known > 0) more.narrow(0, 0, known).copy_(records_);
    records_ = more;
    moved_();
  }
  return {static_cast<Record*>(records_.mutable_data_ptr()) + site, stride};
}

std::vector<StatsBook::Gathered> DeviceErrors::collect() {
  std::vector<StatsBook::Gathered> gathered;
  if (!records_.defined()) return gathered;
  const c10::InferenceMode inference;
  const Tensor host = records_.to(at::kCPU, /*non_blocking=*/false, /*copy=*/true);
  records_.zero_();
  const auto* next = static_cast<const Record*>(host.const_data_ptr());
  for (std::int64_t sample = 0; sample < host.size(0); ++sample) {
    for (Site& site : sites_) {
      const Record& record = *next++;
      site.overflow->note(record.input_overflowed != 0, "its input");
      site.overflow->note(record.output_overflowed != 0, "its output");
      if (record.errors.call_count() == 0) continue;
      gathered.push_back({static_cast<std::size_t>(sample), site.entry, record.errors});
      if (sample > 0 || !std::exchange(site.keeps, false)) continue;
      site.kept = record.errors;
      site.has_kept = true;
    }
  }
  for (Site& site : sites_) {
    const std::int64_t samples = std::exchange(site.repeated_samples, 0);
    const std::int64_t first = std::exchange(site.has_kept, false) ? 1 : 0;  // the first sample was observed itself
    for (std::int64_t sample = first; sample < samples; ++sample) {
      gathered.push_back({static_cast<std::size_t>(sample), site.entry, site.kept});
    }
  }
  return gathered;
}

DeviceHook::DeviceHook(model::MatmulSite& site, FormatPair formats, const HookContext& context, std::size_t entry,
                       const DeviceKernels& kernels, DeviceErrors& errors)
    : QuantHook(site, formats, context, entry),
      kernels_(kernels),
      errors_(errors),
      record_(errors.add_site(entry, overflow_)),
      terms_(float_terms(bias_codes_)),
      exact_terms_(float_terms(site.bias)) {}

Tensor DeviceHook::rounded(const Tensor& values, at::ScalarType stored, std::span<DeviceHook* const> hooks) {
  std::vector<std::uint32_t*> flags;
  for (const DeviceHook* hook : hooks) flags.push_back(&errors_.slot(hook->record_, 1).first->input_overflowed);
  return round_on_device(kernels_, values, stored, formats_.input, flags);
}

bool DeviceHook::exact_operands(const Tensor& x) const {
  return keeps(formats_.input, x.scalar_type()) && weight_codes_.is_same(site_.weight);
}

const Tensor& DeviceHook::wide_weight() {
  if (weight_codes_.element_size() > 1) return weight_codes_;
  if (!wide_weight_.defined()) {
    const c10::InferenceMode inference;
    wide_weight_ = weight_codes_.to(at::kBFloat16);
  }
  return wide_weight_;
}

bool DeviceHook::takes_few_rows(const Tensor& x) const {
  const bool samples_apart = context_.measured() && context_.samples_apart && x.size(0) > 1;
  return x.scalar_type() == at::kBFloat16 && site_.weight.scalar_type() == at::kBFloat16 &&
         site_.in_features % 8 == 0 && x.numel() <= HookedRowsCall::most_rows * site_.in_features && !samples_apart &&
         site_.calls == 1;
}

Tensor DeviceHook::result_of(const Tensor& x) const {
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = site_.out_features;
  return at::empty(shape, x.options());
}

Tensor DeviceHook::linear(const Tensor& x) {
  DeviceHook* const self = this;
  return takes_few_rows(x) ? few_rows({&self, 1}, x).front() : many_rows({&self, 1}, x).front();
}

std::vector<Tensor> DeviceHook::linears(std::span<model::MatmulHook* const> hooks, const Tensor& x) {
  std::vector<DeviceHook*> alike;
  for (model::MatmulHook* hook : hooks) {
    auto* const other = dynamic_cast<DeviceHook*>(hook);
    if (other != nullptr && other->formats_.input == formats_.input && other->takes_few_rows(x) == takes_few_rows(x) &&
        other->exact_operands(x) == exact_operands(x)) {
      alike.push_back(other);
    }
  }
  if (alike.size() < hooks.size()) return MatmulHook::linears(hooks, x);
  return takes_few_rows(x) ? few_rows(alike, x) : many_rows(alike, x);
}

std::vector<Tensor> DeviceHook::many_rows(std::span<DeviceHook* const> hooks, const Tensor& x) {
  const c10::DeviceGuard guard(x.device());
  const Tensor rows = x.contiguous();
  const bool keeps_input = keeps(formats_.input, x.scalar_type());
  const Tensor operand = keeps_input ? rows : rounded(rows, operand_dtype(formats_.input), hooks);
  std::vector<Tensor> results;
  for (DeviceHook* hook : hooks) results.push_back(hook->many_rows(rows, operand));
  return results;
}

Tensor DeviceHook::many_rows(const Tensor& x, const Tensor& rounded) {
  const auto as_rows = [&](const Tensor& tensor) { return tensor.view({-1, site_.in_features}); };
  const Tensor sums = product(as_rows(rounded), wide_weight());
  if (!context_.measured()) return settle(sums, {}, result_of(x));
  if (exact_operands(x)) return settle(sums, sums, result_of(x));
  site_.flop += 2 * x.numel() * site_.out_features;
  return settle(sums, product(as_rows(x), site_.weight), result_of(x));
}

std::vector<Tensor> DeviceHook::few_rows(std::span<DeviceHook* const> hooks, const Tensor& x) {
  const c10::DeviceGuard guard(x.device());
  TORCH_INTERNAL_ASSERT(hooks.size() <= HookedRowsCall::most_parts);
  const Tensor rows = x.contiguous();
  HookedRowsCall call{};
  call.rows = static_cast<int>(x.numel() / site_.in_features);
  call.in = static_cast<int>(site_.in_features);
  call.x = static_cast<const std::uint16_t*>(rows.const_data_ptr());
  call.input = formats_.input;
  call.compares_exact = context_.measured() && !exact_operands(x);
  std::vector<Tensor> results;
  std::vector<Finish> finishes;  // hold their memory until the kernel is on its way
  for (DeviceHook* hook : hooks) {
    if (call.compares_exact) hook->site_.flop += 2 * x.numel() * hook->site_.out_features;
    HookedRowsCall::Part& part = call.parts[call.part_count++];
    part.weight = hook->weight_codes_.const_data_ptr();
    part.exact_weight = static_cast<const std::uint16_t*>(hook->site_.weight.const_data_ptr());
    part.out = static_cast<int>(hook->site_.out_features);
    results.push_back(hook->result_of(x));
    finishes.push_back(hook->finish_of(results.back(), context_.measured(), 1, partial_count(call.rows, part.out)));
    part.result = finishes.back().call;
    part.input_overflowed = &errors_.slot(hook->record_, 1).first->input_overflowed;
  }
  kernels_.multiply_few_rows(call, model::current_stream(x.device()));
  return results;
}

Tensor DeviceHook::round_operand(const Tensor& operand) {
  DeviceHook* const self = this;
  return keeps(formats_.input, operand.scalar_type()) ? operand : rounded(operand, operand.scalar_type(), {&self, 1});
}

Tensor DeviceHook::settle_attention(const Tensor& attended, const Tensor& reference) {
  const c10::DeviceGuard guard(attended.device());
  const Tensor sums = attended.contiguous();
  return settle(sums, reference.defined() ? reference.contiguous() : reference, at::empty_like(sums));
}

DeviceHook::Finish DeviceHook::finish_of(const Tensor& result, bool compared, std::int64_t records,
                                         std::int64_t parts) {
  const DeviceErrors::Slot slot = errors_.slot(record_, records);
  const std::int64_t calls = compared ? site_.calls : 1;
  Finish finish{};
  ResultCall& call = finish.call;
  call.bias = terms_of(terms_);
  call.exact_bias = terms_of(exact_terms_);
  call.out = result.mutable_data_ptr();
  call.out_storage = model::format_of(result.scalar_type());
  call.compare_stored = site_.kind == model::SiteKind::attention;
  call.records = static_cast<int>(records);
  call.calls = static_cast<int>(calls);
  const std::int64_t values = result.numel() / records / calls;
  TORCH_CHECK(values <= std::int64_t{1} << 30, site_.path, ": found ", values,
              " results at once, expected at most 2^30, as of a smaller batch");
  call.values = static_cast<int>(values);
  call.columns = static_cast<int>(result.size(-1));
  call.format = formats_.output;
  call.overflowed = &slot.first->output_overflowed;
  if (!compared) return finish;
  call.errors = &slot.first->errors;
  call.arrived = &slot.first->arrived;
  call.record_stride = slot.stride;
  finish.partial = at::empty({records * calls * parts * part_bytes}, result.options().dtype(at::kByte));
  call.partial = finish.partial.mutable_data_ptr();
  return finish;
}

Tensor DeviceHook::settle(const Tensor& sums, const Tensor& exact, const Tensor& result) {
  const bool compared = exact.defined();
  const std::int64_t calls = compared ? site_.calls : 1;
  TORCH_INTERNAL_ASSERT(result.size(0) % calls == 0);
  const std::int64_t records = compared && context_.samples_apart ? result.size(0) / calls : 1;
  const Finish finish = finish_of(result, compared, records, partial_count(result.numel() / records / calls));
  kernels_.finish({.sums = sums.const_data_ptr(),
                   .exact_sums = compared ? exact.const_data_ptr() : nullptr,
                   .in_storage = model::format_of(sums.scalar_type()),
                   .result = finish.call},
                  model::current_stream(sums.device()));
  return result;
}

}  // namespace pi0::quant
