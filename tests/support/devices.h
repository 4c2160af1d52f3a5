// A GPU to test on, where there is one, and its ways on the CPU, where there is none.
#pragma once

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <memory>
#include <optional>
#include <utility>

#include "model/backends/cuda/cuda_backend.h"
#include "model/backends/cuda/cuda_quantizer.h"
#include "support/device_kernels.h"
#include "support/device_layers.h"

namespace pi0::test {

// How fast models run on this machine's first GPU; none: this build or this machine has none.
inline std::optional<model::Execution> fast_gpu() {
  if (!at::hasCUDA() || at::detail::getCUDAHooks().deviceCount() == 0) return std::nullopt;
  const at::Device device(at::kCUDA, 0);
  return model::Execution{device, model::cuda_backend(0), model::device_recorder(device)};
}

// LibTorch's layers with a device's quantization in turn.
class LikeCuda : public model::ReferenceBackend {
 public:
  std::string_view name() const override { return "cuda"; }
  bool skips_unread() const override { return true; }
  std::unique_ptr<model::Quantizer> quantizer(model::ErrorSink& sink, std::function<void()> moved) const override {
    return std::make_unique<model::CudaQuantizer>(*this, kernels_in_turn, sink, std::move(moved));
  }
};

// A GPU's way on the CPU: with LibTorch's layers, or with a device's layers in turn.
inline model::Execution like_gpu(std::shared_ptr<model::WorkRecorder> recorder = nullptr) {
  return {.backend = std::make_shared<const LikeCuda>(), .recorder = std::move(recorder)};
}
inline model::Execution like_gpu_in_turn(std::shared_ptr<model::WorkRecorder> recorder = nullptr) {
  return {.backend = std::make_shared<const model::CudaBackend>(layers_in_turn, kernels_in_turn),
          .recorder = std::move(recorder)};
}

}  // namespace pi0::test
