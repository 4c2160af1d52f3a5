// Device kernels on tensors.
#pragma once

#include <ATen/ATen.h>

#include <span>

#include "model/backends/cuda/device_kernels.h"

namespace pi0::model {

// Float32 or bfloat16 values rounded, as values of the dtype `stored`, which the format fits; dense, of the same
// sizes. Up to three flags in the device's memory are set to 1 where a finite value was beyond the format's largest.
at::Tensor round_on_device(const DeviceKernels& kernels, const at::Tensor& values, at::ScalarType stored, Format format,
                           std::span<std::uint32_t* const> overflowed);

}  // namespace pi0::model
