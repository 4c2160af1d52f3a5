#include <immintrin.h>

#include "model/backends/cpu/gemm_table.h"
#include "model/backends/cpu/gemm_widen.h"

namespace pi0::model {
namespace {

struct Floats {
  using Sum = __m256;
  static constexpr int lanes = 8;
  static constexpr int max_rows = 6;
  static __m256 zero() { return _mm256_setzero_ps(); }
  static __m256 add(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
  static __m256 load(const float* sums) { return _mm256_loadu_ps(sums); }
  static void store(float* sums, __m256 sum) { _mm256_storeu_ps(sums, sum); }
  static __m256 multiply_add(__m256 sum, __m256 x, __m256 lanes) { return _mm256_fmadd_ps(x, lanes, sum); }
  static __m256 load_lanes(const std::uint32_t* lanes) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(lanes));
  }
  static __m256 broadcast(const std::uint32_t* x) { return _mm256_broadcast_ss(reinterpret_cast<const float*>(x)); }
};

void multiply(Lane, const Run& run) { multiply_run<Floats>(run); }

}  // namespace

const GemmKernels& avx2_gemm() {
  static const GemmKernels kernels = kernel_table(InstructionSet::avx2, widen, widen_elements, multiply,
                                                  multiply_in_order<Floats>, /*has_pairs=*/false);
  return kernels;
}

}  // namespace pi0::model
