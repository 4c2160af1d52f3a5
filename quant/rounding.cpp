#include "quant/rounding.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "model/format_dtype.h"
#include "quant/device_rounding.h"

namespace pi0::quant {
namespace {

constexpr std::int64_t values_per_task = 1 << 15;

Rounded round_cpu_tensor(const at::Tensor& values, Format format) {
  const at::Tensor source = values.is_non_overlapping_and_dense() ? values : values.contiguous();
  Rounded result{at::empty_like(source)};
  const float* in = source.const_data_ptr<float>();
  float* out = result.values.mutable_data_ptr<float>();
  const RoundingKernels& kernels = best_rounding_kernels();
  std::atomic<bool> overflowed = false;
  at::parallel_for(0, source.numel(), values_per_task, [&](std::int64_t begin, std::int64_t end) {
    const float largest = kernels.round(in + begin, out + begin, end - begin, format);
    if (overflows(largest, format)) overflowed = true;
  });
  result.overflowed = overflowed;
  return result;
}

// `values` of float32 or bfloat16, to values of `stored`.
Rounded round_device_tensor(const at::Tensor& values, Format format, at::ScalarType stored) {
  const DeviceKernels* const kernels = cuda_kernels();
  TORCH_CHECK(kernels != nullptr && values.is_cuda(), "rounding: this build has no kernels for ", values.device());
  const at::Tensor overflowed = at::zeros({1}, values.options().dtype(at::kInt));
  auto* const flag = static_cast<std::uint32_t*>(overflowed.mutable_data_ptr());
  const at::Tensor result = round_on_device(*kernels, values, stored, format, {&flag, 1});
  return {result, overflowed.item<std::int32_t>() != 0};
}

}  // namespace

const RoundingKernels& rounding_kernels(model::InstructionSet set) {
  switch (set) {
#ifdef __x86_64__
    case model::InstructionSet::avx2:
      return formats::avx2_rounding();
    case model::InstructionSet::avx512:
    case model::InstructionSet::avx512_bf16:
    case model::InstructionSet::amx_bf16:
      return formats::avx512_rounding();
#endif
    default:
      return formats::portable_rounding();
  }
}

const RoundingKernels& best_rounding_kernels() {
  static const model::InstructionSet best = model::instruction_sets().back();
  return rounding_kernels(best);
}

bool overflows(float magnitude, Format format) { return std::isfinite(magnitude) && magnitude >= first_beyond(format); }

Rounded round_to(const at::Tensor& values, Format format) {
  TORCH_CHECK(values.scalar_type() == at::kFloat, "round_to: found ", values.scalar_type(), ", expected float32");
  if (format == Format::float32) return {values};
  return values.is_cpu() ? round_cpu_tensor(values, format) : round_device_tensor(values, format, at::kFloat);
}

at::Tensor to_codes(const at::Tensor& rounded, Format format) { return rounded.to(model::dtype_of(format)); }

Rounded round_to_codes(const at::Tensor& parameter, Format format) {
  if (!parameter.is_cpu()) return round_device_tensor(parameter, format, model::dtype_of(format));
  constexpr std::int64_t slice = 1 << 20;
  Rounded result{at::empty(parameter.sizes(), parameter.options().dtype(model::dtype_of(format)))};
  const at::Tensor source = parameter.contiguous().view({-1});
  const at::Tensor target = result.values.view({-1});
  for (std::int64_t first = 0; first < source.numel(); first += slice) {
    const std::int64_t length = std::min(slice, source.numel() - first);
    const Rounded rounded = round_to(source.narrow(0, first, length).to(at::kFloat), format);
    target.narrow(0, first, length).copy_(rounded.values);
    result.overflowed |= rounded.overflowed;
  }
  return result;
}

RoundedWeight round_to_codes(const RoundingKernels& kernels, const model::PackedWeight& weight, Format format) {
  const at::Tensor& from = weight.panels;
  RoundedWeight result{
      {model::empty_panels(from.sizes(), from.options().dtype(model::dtype_of(format))), weight.out, weight.in}};
  const bool is_bfloat16 = from.scalar_type() == at::kBFloat16;
  TORCH_CHECK(is_bfloat16 || from.scalar_type() == at::kFloat, "round_to_codes: found ", from.scalar_type(),
              ", expected float32 or bfloat16");
  const auto* in = static_cast<const std::uint8_t*>(from.const_data_ptr());
  auto* out = static_cast<std::uint8_t*>(result.weight.panels.mutable_data_ptr());
  const std::int64_t in_bytes = from.element_size(), out_bytes = result.weight.panels.element_size();
  std::atomic<bool> overflowed = false;
  at::parallel_for(0, from.numel(), values_per_task, [&](std::int64_t begin, std::int64_t end) {
    const float largest =
        kernels.encode(in + begin * in_bytes, is_bfloat16, out + begin * out_bytes, end - begin, format);
    if (overflows(largest, format)) overflowed = true;
  });
  result.overflowed = overflowed;
  return result;
}

}  // namespace pi0::quant
