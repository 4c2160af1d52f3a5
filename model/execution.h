// Where a model runs and how.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <vector>

namespace pi0::model {

class Backend;
std::shared_ptr<const Backend> reference_backend();  // openpi's operations, one by one

// Records the work that a device is given, so that the device can repeat it without the host.
class Recorder {
 public:
  virtual ~Recorder() = default;

  // Runs the parts on the host while the device records. Returns one function for each that makes the device repeat
  // it; they are to be called in the same order. Parts must not wait for the device nor move their tensors.
  using Work = std::function<void()>;
  virtual std::vector<Work> record(const std::vector<Work>& parts) = 0;
};

// Of CUDA graphs; null for other devices.
std::shared_ptr<Recorder> device_recorder(at::Device device);

struct Execution {
  at::Device device = at::kCPU;
  std::shared_ptr<const Backend> backend = reference_backend();
  std::shared_ptr<Recorder> recorder = nullptr;  // null: nothing is recorded
};

}  // namespace pi0::model
