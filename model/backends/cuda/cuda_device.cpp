// The parts that need CUDA: the GPU's backend, and recording of work as CUDA graphs.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <exception>

#include "model/backends/cuda/cuda_backend.h"
#include "model/backends/cuda/device_rounding.h"
#include "model/execution.h"
#include "model/rounding.h"

namespace pi0::model {
namespace {

class CudaRecorder : public WorkRecorder {
 public:
  explicit CudaRecorder(at::Device device)
      : device_(device), stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index())) {}

  std::vector<Work> record(const std::vector<Work>& parts) override {
    // Graphs that share a memory pool must replay in the order of recording. Each recording has its own pool.
    const at::cuda::MempoolId_t pool = at::cuda::graph_pool_handle();
    const c10::cuda::CUDAGuard device(device_);
    c10::cuda::device_synchronize();
    const c10::cuda::CUDAStreamGuard stream(stream_);
    std::vector<Work> replays;
    for (const Work& part : parts) {
      const auto graph = std::make_shared<at::cuda::CUDAGraph>();
      // Thread-local, so that other threads may use the device during the capture.
      graph->capture_begin(pool, cudaStreamCaptureModeThreadLocal);
      try {
        part();
      } catch (...) {
        try {
          graph->capture_end();
        } catch (const std::exception&) {  // a partial capture may fail to end; report the first error
        }
        throw;
      }
      graph->capture_end();
      replays.emplace_back([graph] { graph->replay(); });
    }
    return replays;
  }

 private:
  const at::Device device_;
  const c10::cuda::CUDAStream stream_;
};

}  // namespace

std::shared_ptr<const Backend> cuda_backend(int device_index) {
  return std::make_shared<const CudaBackend>(*cuda_layers(device_index), *cuda_kernels());
}

Rounded round_cuda_tensor(const at::Tensor& values, Format format, at::ScalarType stored) {
  const at::Tensor overflowed = at::zeros({1}, values.options().dtype(at::kInt));
  auto* const flag = static_cast<std::uint32_t*>(overflowed.mutable_data_ptr());
  const at::Tensor result = round_on_device(*cuda_kernels(), values, stored, format, {&flag, 1});
  return {result, overflowed.item<std::int32_t>() != 0};
}

std::shared_ptr<WorkRecorder> device_recorder(at::Device device) {
  return device.is_cuda() ? std::make_shared<CudaRecorder>(device) : nullptr;
}

}  // namespace pi0::model
