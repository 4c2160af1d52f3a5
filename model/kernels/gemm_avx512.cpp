#include "model/kernels/gemm_avx512.h"

namespace pi0::model {
namespace {

void multiply(Lane, const std::uint32_t* x, std::int64_t stride, std::int64_t rows,
              std::int64_t steps, const std::uint32_t* lanes, float* sums, bool add) {
  multiply_panel<Floats>(x, stride, rows, steps, lanes, sums, add);
}

}  // namespace

const GemmKernels& avx512_gemm() {
  static const GemmKernels kernels = {InstructionSet::avx512, widen, multiply, add_terms, store,
                                     widen_bfloat16, narrow_to_bfloat16, false, layer_kernels};
  return kernels;
}

}  // namespace pi0::model
