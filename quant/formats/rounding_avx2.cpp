#include "quant/formats/rounding_loops.h"

namespace pi0::formats {

const RoundingKernels& avx2_rounding() { return kernels; }

}  // namespace pi0::formats
