#include "quant/device_hook.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <type_traits>

#include "quant/device_rounding.h"

namespace pi0::quant {
namespace {

using model::Tensor;

static_assert(std::is_trivially_copyable_v<DeviceErrors::Record>);

// A dtype that a format's values fit in and that matrix units multiply exactly.
at::ScalarType operand_dtype(Format format) {
  return format == Format::float32 ? at::kFloat : format == Format::float16 ? at::kHalf : at::kBFloat16;
}

// rows · weightᵀ in float32, [R, Out].
Tensor product(const Tensor& rows, const Tensor& weight) {
  const at::ScalarType dtype = rows.scalar_type();
  const bool fits = dtype == weight.scalar_type() || (dtype == at::kBFloat16 && weight.element_size() == 1);
  if (rows.is_cuda() && dtype != at::kFloat && fits) return at::mm(rows, weight.to(dtype).t(), at::kFloat);
  return at::mm(rows.to(at::kFloat), weight.to(at::kFloat).t());
}

Tensor float_terms(const Tensor& bias) { return bias.defined() ? bias.to(at::kFloat).contiguous() : bias; }

const float* terms_of(const Tensor& terms) { return terms.defined() ? terms.const_data_ptr<float>() : nullptr; }

}  // namespace

DeviceErrors::DeviceErrors(at::Device device, std::function<void()> moved)
    : device_(device), moved_(std::move(moved)) {}

std::size_t DeviceErrors::add_site(std::size_t entry, OverflowNote& overflow) {
  sites_.push_back({entry, &overflow});
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
    for (const Site& site : sites_) {
      const Record& record = *next++;
      site.overflow->note(record.input_overflowed != 0, "its input");
      site.overflow->note(record.output_overflowed != 0, "its output");
      if (record.errors.call_count() == 0) continue;
      gathered.push_back({static_cast<std::size_t>(sample), site.entry, record.errors});
    }
  }
  return gathered;
}

DeviceHook::DeviceHook(model::MatmulSite& site, FormatPair formats, const HookContext& context,
                       std::size_t entry, const DeviceKernels& kernels, DeviceErrors& errors)
    : QuantHook(site, formats, context, entry), kernels_(kernels), errors_(errors),
      record_(errors.add_site(entry, overflow_)), terms_(float_terms(bias_codes_)),
      exact_terms_(float_terms(site.bias)) {}

Tensor DeviceHook::rounded(const Tensor& values, at::ScalarType stored) {
  return round_on_device(kernels_, values, stored, formats_.input,
                         &errors_.slot(record_, 1).first->input_overflowed);
}

Tensor DeviceHook::linear(const Tensor& x) {
  const Tensor rows = x.contiguous().view({-1, site_.in_features});
  const bool keeps_input = keeps(formats_.input, x.scalar_type());
  const Tensor sums =
      product(keeps_input ? rows : rounded(rows, operand_dtype(formats_.input)), weight_codes_);
  Tensor exact;
  if (context_.measured()) {
    exact = sums;
    if (!keeps_input || !weight_codes_.is_same(site_.weight)) {
      site_.flop += 2 * x.numel() * site_.out_features;
      exact = product(rows, site_.weight);
    }
  }
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = site_.out_features;
  ResultCall call{};
  call.bias = terms_of(terms_);
  call.exact_bias = terms_of(exact_terms_);
  return settle(call, sums, exact, at::empty(shape, x.options()));
}

Tensor DeviceHook::round_operand(const Tensor& operand) {
  return keeps(formats_.input, operand.scalar_type()) ? operand : rounded(operand, operand.scalar_type());
}

Tensor DeviceHook::settle_attention(const Tensor& attended, const Tensor& reference) {
  ResultCall call{};
  call.compare_stored = true;
  const Tensor sums = attended.contiguous();
  return settle(call, sums, reference.defined() ? reference.contiguous() : reference, at::empty_like(sums));
}

Tensor DeviceHook::settle(ResultCall call, const Tensor& sums, const Tensor& exact, const Tensor& result) {
  const c10::DeviceGuard guard(sums.device());
  const bool compared = exact.defined();
  call.samples = compared && context_.samples_apart ? result.size(0) : 1;
  call.values = result.numel() / call.samples;
  call.columns = result.size(-1);
  const DeviceErrors::Slot slot = errors_.slot(record_, call.samples);
  const Tensor partial =
      compared ? at::empty({call.samples * partial_count(call.values) * static_cast<std::int64_t>(sizeof(ErrorSums))},
                           sums.options().dtype(at::kByte))
               : Tensor{};
  call.sums = sums.const_data_ptr();
  call.exact_sums = compared ? exact.const_data_ptr() : nullptr;
  call.in_storage = storage_of(sums.scalar_type());
  call.out = result.mutable_data_ptr();
  call.out_storage = storage_of(result.scalar_type());
  call.format = formats_.output;
  call.overflowed = &slot.first->output_overflowed;
  call.errors = &slot.first->errors;
  call.errors_stride = slot.stride;
  call.partial = compared ? static_cast<ErrorSums*>(partial.mutable_data_ptr()) : nullptr;
  kernels_.finish(call, current_stream(sums.device()));
  return result;
}

}  // namespace pi0::quant
