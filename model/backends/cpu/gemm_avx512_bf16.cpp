#include "model/backends/cpu/gemm_coded_pairs.h"
#include "model/backends/cpu/gemm_table.h"

namespace pi0::model {
namespace {

struct Pairs : Floats {
  static __m512 multiply_add(__m512 sum, __m512i x, __m512i lanes) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(lanes), reinterpret_cast<__m512bh>(x));
  }
  static __m512i load_lanes(const std::uint32_t* lanes) { return _mm512_loadu_si512(lanes); }
  static __m512i broadcast(const std::uint32_t* x) { return _mm512_set1_epi32(static_cast<int>(*x)); }
};

void multiply(Lane lane, const Run& run) {
  (lane == Lane::bfloat16_pair ? multiply_run<Pairs> : multiply_run<Floats>)(run);
}

}  // namespace

const GemmKernels& avx512_bf16_gemm() {
  static const GemmKernels kernels =
      kernel_table(InstructionSet::avx512_bf16, widen_with_permutes, widen_elements_with_permutes, multiply,
                   multiply_in_order<Floats>, /*has_pairs=*/true);
  return kernels;
}

}  // namespace pi0::model
