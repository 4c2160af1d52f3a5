// Device kernels on tensors.
#pragma once

#include <ATen/ATen.h>

#include "quant/kernels/device_kernels.h"

namespace pi0::quant {

Storage storage_of(at::ScalarType dtype);  // throws c10::Error for one that device kernels do not know

// The stream that LibTorch enqueues to; null on the CPU.
void* current_stream(at::Device device);

// `out` is dense, of `values`' sizes and strides; its dtype says how values lie there.
void round_on_device(const DeviceKernels& kernels, const at::Tensor& values, const at::Tensor& out,
                     Format format, std::uint32_t* overflowed);

}  // namespace pi0::quant
