#include "quant/formats/rounding_loops.h"

namespace pi0::formats {

const RoundingKernels& avx512_rounding() { return kernels; }

}  // namespace pi0::formats
