#include "quant/kernels/rounding_loops.h"

namespace pi0::quant {

const RoundingKernels& portable_rounding() { return kernels; }

}  // namespace pi0::quant
