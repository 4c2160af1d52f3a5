#include "quant/kernels/device_kernels.h"

namespace pi0::quant {

const DeviceKernels* cuda_kernels() { return nullptr; }

}  // namespace pi0::quant
