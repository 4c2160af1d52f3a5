// A GPU to test on, where there is one, and its ways on the CPU, where there is none.
#pragma once

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <memory>
#include <optional>
#include <utility>

#include "model/execution.h"
#include "model/kernels/device_layer_kernels.h"

namespace pi0::test {

// How fast models run on this machine's first GPU; none: this build or this machine has none.
inline std::optional<model::Execution> fast_gpu() {
  if (!at::hasCUDA() || at::detail::getCUDAHooks().deviceCount() == 0) return std::nullopt;
  const at::Device device(at::kCUDA, 0);
  return model::Execution{.device = device,
                          .kernels = model::Kernels::fast,
                          .layers = model::cuda_layers(0),
                          .recorder = model::device_recorder(device)};
}

// The same way on the CPU, with libtorch's products.
inline model::Execution like_gpu(std::shared_ptr<model::Recorder> recorder = nullptr) {
  return {.kernels = model::Kernels::fast, .recorder = std::move(recorder)};
}

}  // namespace pi0::test
