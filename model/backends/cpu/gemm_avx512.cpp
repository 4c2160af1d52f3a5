#include "model/backends/cpu/gemm_avx512.h"

#include "model/backends/cpu/gemm_coded.h"

namespace pi0::model {
namespace {

void multiply(Lane, const Run& run) { multiply_run<Floats>(run); }

}  // namespace

const GemmKernels& avx512_gemm() {
  static const GemmKernels kernels = {InstructionSet::avx512,
                                      widen,
                                      widen_elements,
                                      scale_elements,
                                      multiply,
                                      add,
                                      add_scaled,
                                      add_terms,
                                      store,
                                      widen_bfloat16,
                                      narrow_to_bfloat16,
                                      false,
                                      layer_kernels};
  return kernels;
}

}  // namespace pi0::model
