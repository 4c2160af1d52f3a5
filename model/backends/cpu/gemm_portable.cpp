#include <cmath>

#include "model/backends/cpu/gemm_table.h"
#include "model/backends/cpu/gemm_widen.h"

namespace pi0::model {
namespace {

struct Floats {
  typedef float Sum __attribute__((vector_size(16)));
  static constexpr int lanes = 4;
  static constexpr int max_rows = 4;
  static Sum zero() { return Sum{}; }
  static Sum add(Sum a, Sum b) { return a + b; }
  static Sum load(const float* sums) {
    Sum sum;
    std::memcpy(&sum, sums, sizeof sum);
    return sum;
  }
  static void store(float* sums, Sum sum) { std::memcpy(sums, &sum, sizeof sum); }
  static Sum multiply_add(Sum sum, Sum x, Sum lanes) { return sum + x * lanes; }
  static Sum load_lanes(const std::uint32_t* lanes) { return load(reinterpret_cast<const float*>(lanes)); }
  static Sum broadcast(const std::uint32_t* x) {
    const float value = std::bit_cast<float>(*x);
    return Sum{value, value, value, value};
  }
};

// Rounds once without an instruction that does.
struct Fused : Floats {
  static Sum multiply_add(Sum sum, Sum x, Sum lanes) {
    for (int i = 0; i < Floats::lanes; ++i) sum[i] = std::fma(x[i], lanes[i], sum[i]);
    return sum;
  }
};

void multiply(Lane, const Run& run) { multiply_run<Floats>(run); }

}  // namespace

const GemmKernels& portable_gemm() {
  static const GemmKernels kernels = kernel_table(InstructionSet::portable, widen, widen_elements, multiply,
                                                  multiply_in_order<Floats, Fused>, /*has_pairs=*/false);
  return kernels;
}

}  // namespace pi0::model
