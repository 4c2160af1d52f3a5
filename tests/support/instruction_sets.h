// The tables of quant/formats that this CPU can run, the portable ones first.
#pragma once

#include <vector>

#include "quant/formats/rounding_kernels.h"
#include "quant/formats/scaled_rounding.h"

namespace pi0::test {

struct InstructionSet {
  const char* name;
  const formats::RoundingKernels* rounding;
  const formats::ScaledKernels* scaled;
};

inline std::vector<InstructionSet> instruction_sets() {
  std::vector<InstructionSet> sets = {{"portable", &formats::portable_rounding(), &formats::portable_scaled()}};
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2")) sets.push_back({"AVX2", &formats::avx2_rounding(), &formats::avx2_scaled()});
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    sets.push_back({"AVX-512", &formats::avx512_rounding(), &formats::avx512_scaled()});
  }
#endif
  return sets;
}

}  // namespace pi0::test
