// Rounds tensors with device kernels.
#pragma once

#include <ATen/ATen.h>

#include <span>

#include "model/backends/cuda/device_kernels.h"

namespace pi0::model {

// Rounds float32 or bfloat16 values to a dense tensor of dtype `stored`, which must hold the format. Sets up to three
// flags in device memory to 1 if a finite value exceeds the format's largest.
at::Tensor round_on_device(const DeviceKernels& kernels, const at::Tensor& values, at::ScalarType stored, Format format,
                           std::span<std::uint32_t* const> overflowed);

}  // namespace pi0::model
