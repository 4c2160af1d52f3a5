// Where a model runs and how.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <vector>

namespace pi0::model {

class Backend;
std::shared_ptr<const Backend> reference_backend();  // openpi's operations, one by one

// For the GPU of that index; in a build without CUDA, the reference backend.
std::shared_ptr<const Backend> cuda_backend(int device_index);

// Records the work that the host submits to a device, so that the device can replay it without the host.
class WorkRecorder {
 public:
  virtual ~WorkRecorder() = default;

  // Runs the parts on the host while the device records them. Returns a function for each part that replays it; these
  // must be called in the same order. Parts must neither wait for the device nor reallocate their tensors.
  using Work = std::function<void()>;
  virtual std::vector<Work> record(const std::vector<Work>& parts) = 0;
};

// Records CUDA graphs. Null if `device` is not a GPU.
std::shared_ptr<WorkRecorder> device_recorder(at::Device device);

struct Execution {
  at::Device device = at::kCPU;
  std::shared_ptr<const Backend> backend = reference_backend();
  std::shared_ptr<WorkRecorder> recorder = nullptr;  // null: nothing is recorded
};

}  // namespace pi0::model
