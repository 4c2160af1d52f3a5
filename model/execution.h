// Where a model runs and how.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <vector>

#include "model/kernels/gemm.h"

namespace pi0::model {

enum class Kernels {
  reference,  // openpi's operations, one by one
  fast        // the same function in less time: what nobody reads is left out, what cannot change is kept
};

// Records what a device is given to do, so that it can do it again without the host's part in it.
class Recorder {
 public:
  virtual ~Recorder() = default;

  // Runs the parts on the host while the device records, and gives back what makes the device do each. They
  // are repeated in the same order. Parts wait for nothing, and leave their tensors where they are.
  using Work = std::function<void()>;
  virtual std::vector<Work> record(const std::vector<Work>& parts) = 0;
};

// Of CUDA graphs; null for other devices.
std::shared_ptr<Recorder> device_recorder(at::Device device);

struct DeviceLayers;

struct Execution {
  at::Device device = at::kCPU;
  Kernels kernels = Kernels::reference;
  const GemmKernels* gemm = nullptr;             // a CPU's fast kernels; null: libtorch's products
  const DeviceLayers* layers = nullptr;          // a device's fast kernels; null: libtorch's operations
  std::shared_ptr<Recorder> recorder = nullptr;  // with fast kernels; null: nothing is recorded
};

}  // namespace pi0::model
