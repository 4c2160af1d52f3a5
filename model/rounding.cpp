#include "model/rounding.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "model/format_dtype.h"

namespace pi0::model {
namespace {

constexpr std::int64_t values_per_task = 1 << 15;

std::int64_t row_length(const at::Tensor& values) { return values.dim() == 0 ? 1 : values.size(-1); }

// Whether the tensor is dense and its rows are contiguous. The rows may be in any order.
bool has_dense_rows(const at::Tensor& values) {
  return values.is_non_overlapping_and_dense() && (row_length(values) == 1 || values.stride(-1) == 1);
}

// Rounds the dense rows of `from` into `to`, which has the same strides.
bool round_rows(const at::Tensor& from, const at::Tensor& to, Format format) {
  const float* const in = from.const_data_ptr<float>();
  float* const out = to.mutable_data_ptr<float>();
  const std::int64_t length = row_length(from), rows = from.numel() == 0 ? 0 : from.numel() / length;
  const RoundingKernels& kernels = best_rounding_kernels();
  std::atomic<bool> overflowed = false;
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, values_per_task / std::max<std::int64_t>(1, length));
  at::parallel_for(0, rows, rows_per_task, [&](std::int64_t begin, std::int64_t end) {
    const float largest =
        kernels.round({in + begin * length, end - begin, length, length}, out + begin * length, format);
    if (overflows(largest, format)) overflowed = true;
  });
  return overflowed;
}

Rounded round_cpu_tensor(const at::Tensor& values, Format format) {
  const at::Tensor source = values.is_non_overlapping_and_dense() ? values : values.contiguous();
  Rounded result{at::empty_like(source)};  // of the same strides
  if (has_dense_rows(source)) {
    result.overflowed = round_rows(source, result.values, format);
  } else {
    const at::Tensor rows = source.contiguous(), rounded = at::empty_like(rows);
    result.overflowed = round_rows(rows, rounded, format);
    result.values.copy_(rounded);
  }
  return result;
}

}  // namespace

const RoundingKernels& rounding_kernels(InstructionSet set) {
  switch (set) {
#ifdef __x86_64__
    case InstructionSet::avx2:
      return formats::avx2_rounding();
    case InstructionSet::avx512:
    case InstructionSet::avx512_bf16:
    case InstructionSet::amx_bf16:
      return formats::avx512_rounding();
#endif
    default:
      return formats::portable_rounding();
  }
}

const RoundingKernels& best_rounding_kernels() {
  static const InstructionSet best = instruction_sets().back();
  return rounding_kernels(best);
}

bool overflows(float magnitude, Format format) { return std::isfinite(magnitude) && magnitude >= first_beyond(format); }

Rounded round_to(const at::Tensor& values, Format format) {
  TORCH_CHECK(values.scalar_type() == at::kFloat, "round_to: found ", values.scalar_type(), ", expected float32");
  if (format == Format::float32) return {values};
  return values.is_cpu() ? round_cpu_tensor(values, format) : round_cuda_tensor(values, format, at::kFloat);
}

at::Tensor to_codes(const at::Tensor& rounded, Format format) { return rounded.to(dtype_of(format)); }

Rounded round_to_codes(const at::Tensor& parameter, Format format) {
  const at::ScalarType dtype = dtype_of(format);
  if (!parameter.is_cpu()) return round_cuda_tensor(parameter, format, dtype);
  constexpr std::int64_t values_at_once = 1 << 20;
  Rounded result{at::empty(parameter.sizes(), parameter.options().dtype(dtype))};
  if (parameter.numel() == 0) return result;
  const at::Tensor source = parameter.contiguous().view({-1, row_length(parameter)});
  const at::Tensor target = result.values.view(source.sizes());
  const std::int64_t slice = std::max<std::int64_t>(1, values_at_once / source.size(1));
  for (std::int64_t first = 0; first < source.size(0); first += slice) {
    const std::int64_t rows = std::min(slice, source.size(0) - first);
    const Rounded rounded = round_to(source.narrow(0, first, rows).to(at::kFloat), format);
    target.narrow(0, first, rows).copy_(rounded.values);
    result.overflowed |= rounded.overflowed;
  }
  return result;
}

RoundedWeight round_to_codes(const RoundingKernels& kernels, const PackedWeight& weight, Format format) {
  const Format stored = weight.format();
  TORCH_CHECK(stored == Format::bfloat16 || stored == Format::float32, "round_to_codes: found ",
              weight.panels.scalar_type(), ", expected float32 or bfloat16");
  const at::Tensor& from = weight.panels;
  const at::Tensor to = empty_panels(from.sizes(), from.options().dtype(dtype_of(format)));
  const std::int64_t length = from.stride(0);  // of a panel, whose padding rounds to zeros
  const auto* const values = static_cast<const std::byte*>(from.const_data_ptr());
  auto* const codes = static_cast<std::byte*>(to.mutable_data_ptr());
  std::atomic<bool> overflowed = false;
  at::parallel_for(0, weight.panel_count(), divided_up(values_per_task, length), [&](auto begin, auto end) {
    const formats::Rows<const void> rows{values + begin * length * from.element_size(), end - begin, length, length};
    const float largest = kernels.encode(rows, stored, codes + begin * length * to.element_size(), format);
    if (overflows(largest, format)) overflowed = true;
  });
  return {{to, weight.out, weight.in}, overflowed};
}

}  // namespace pi0::model
