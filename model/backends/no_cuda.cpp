// For builds without CUDA.
#include "model/backends/cuda/cuda_backend.h"
#include "model/execution.h"

namespace pi0::model {

std::shared_ptr<Recorder> device_recorder(at::Device) { return nullptr; }
std::shared_ptr<const Backend> cuda_backend(int) { return reference_backend(); }

}  // namespace pi0::model
