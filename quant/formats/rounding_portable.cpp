#include "quant/formats/rounding_loops.h"
#include "quant/formats/scaled_loops.h"

namespace pi0::formats {

const RoundingKernels& portable_rounding() { return kernels; }
const ScaledKernels& portable_scaled() { return scaled_kernels; }

}  // namespace pi0::formats
