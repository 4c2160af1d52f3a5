// Rounding and error sums over plain memory, a table per instruction set. No threads.
#pragma once

#include <cstdint>

#include "quant/formats/format.h"

namespace pi0::formats {

struct ErrorSums {
  double squares = 0;          // sum of (reference - result)²
  double power = 0;            // sum of reference²
  std::int64_t nonfinite = 0;  // results that are not finite where the reference is
  float largest = 0;           // magnitude before rounding
};

struct RoundingKernels {
  // Rounds `count` values to the nearest of the format's grid, ties to even, and returns the largest
  // magnitude among them before rounding (NaN left out; 0 for float32, which copies). `out` may be `in`.
  float (*round)(const float* in, float* out, std::int64_t count, Format format);

  // The same from float32 or bfloat16 to codes of the format, which is not float32.
  float (*encode)(const void* in, bool is_bfloat16, void* codes, std::int64_t count, Format format);

  // round() in place, and in the same pass how far the result is from `reference`, which may be `values`.
  ErrorSums (*round_and_compare)(float* values, const float* reference, std::int64_t count, Format format);
};

const RoundingKernels& portable_rounding();
const RoundingKernels& avx2_rounding();
const RoundingKernels& avx512_rounding();

}  // namespace pi0::formats
