#include "quant/formats/rounding_loops.h"
#include "quant/formats/scaled_loops.h"

namespace pi0::formats {

const RoundingKernels& avx2_rounding() { return kernels; }
const ScaledKernels& avx2_scaled() { return scaled_kernels; }

}  // namespace pi0::formats
