// For builds without CUDA.
#include "model/execution.h"
#include "model/rounding.h"

namespace pi0::model {

struct DeviceKernels;
const DeviceKernels* cuda_kernels() { return nullptr; }

std::shared_ptr<WorkRecorder> device_recorder(at::Device) { return nullptr; }
std::shared_ptr<const Backend> cuda_backend(int) { return reference_backend(); }

Rounded round_cuda_tensor(const at::Tensor& values, Format, at::ScalarType) {
  TORCH_CHECK(false, "rounding: this build has no kernels for ", values.device());
}

}  // namespace pi0::model
