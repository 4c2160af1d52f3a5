#include "model/execution.h"
#include "model/kernels/device_layer_kernels.h"

namespace pi0::model {

std::shared_ptr<Recorder> device_recorder(at::Device) { return nullptr; }
const DeviceLayers* cuda_layers(int) { return nullptr; }

}  // namespace pi0::model
