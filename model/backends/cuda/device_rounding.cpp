#include "model/backends/cuda/device_rounding.h"

#include <c10/core/DeviceGuard.h>

#include "model/backends/cuda/device_stream.h"
#include "model/format_dtype.h"

namespace pi0::model {

at::Tensor round_on_device(const DeviceKernels& kernels, const at::Tensor& values, at::ScalarType stored, Format format,
                           std::span<std::uint32_t* const> overflowed) {
  const c10::DeviceGuard guard(values.device());
  const at::Tensor in = values.is_non_overlapping_and_dense() ? values : values.contiguous();
  const at::Tensor out = at::empty_like(in, in.options().dtype(stored));
  RoundCall call{.in = in.const_data_ptr(),
                 .in_storage = format_of(in.scalar_type()),
                 .out = out.mutable_data_ptr(),
                 .out_storage = format_of(stored),
                 .count = in.numel(),
                 .format = format,
                 .flag_count = 0,
                 .overflowed = {}};
  TORCH_INTERNAL_ASSERT(overflowed.size() <= RoundCall::most_flags);
  for (std::uint32_t* flag : overflowed) call.overflowed[call.flag_count++] = flag;
  kernels.round(call, current_stream(in.device()));
  return out;
}

}  // namespace pi0::model
