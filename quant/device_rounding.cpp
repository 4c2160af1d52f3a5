#include "quant/device_rounding.h"

#include <c10/core/DeviceGuard.h>

#include "model/device_stream.h"

namespace pi0::quant {

Storage storage_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return Storage::float32;
    case at::kBFloat16:
      return Storage::bfloat16;
    case at::kHalf:
      return Storage::float16;
    case at::kFloat8_e4m3fn:
    case at::kFloat8_e5m2:
      return Storage::code8;
    default:
      TORCH_CHECK(false, "device kernels: found ", dtype, ", expected a format's dtype");
  }
}

at::Tensor round_on_device(const DeviceKernels& kernels, const at::Tensor& values, at::ScalarType stored, Format format,
                           std::span<std::uint32_t* const> overflowed) {
  const c10::DeviceGuard guard(values.device());
  const at::Tensor in = values.is_non_overlapping_and_dense() ? values : values.contiguous();
  const at::Tensor out = at::empty_like(in, in.options().dtype(stored));
  RoundCall call{.in = in.const_data_ptr(),
                 .in_storage = storage_of(in.scalar_type()),
                 .out = out.mutable_data_ptr(),
                 .out_storage = storage_of(stored),
                 .count = in.numel(),
                 .format = format,
                 .flag_count = 0,
                 .overflowed = {}};
  TORCH_INTERNAL_ASSERT(overflowed.size() <= RoundCall::most_flags);
  for (std::uint32_t* flag : overflowed) call.overflowed[call.flag_count++] = flag;
  kernels.round(call, model::current_stream(in.device()));
  return out;
}

}  // namespace pi0::quant
