#include "model/backends/cpu/gemm_avx512.h"

#include "model/backends/cpu/gemm_table.h"

namespace pi0::model {
namespace {

void multiply(Lane, const Run& run) { multiply_run<Floats>(run); }

}  // namespace

const GemmKernels& avx512_gemm() {
  static const GemmKernels kernels = kernel_table(InstructionSet::avx512, widen, widen_elements, multiply,
                                                  multiply_in_order<Floats>, /*has_pairs=*/false);
  return kernels;
}

}  // namespace pi0::model
