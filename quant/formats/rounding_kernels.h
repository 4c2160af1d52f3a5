// Rounding and error sums over rows of plain memory, a table per instruction set. No threads.
#pragma once

#include <cstdint>

#include "quant/formats/format.h"

namespace pi0::formats {

// Rows of values. An operand's rows are whole and run along the dimension that a matmul sums over; a result's rows are
// parts of its channels. Neighbours in a row may share a scale.
template <class Value>
struct Rows {
  Value* values;
  std::int64_t rows;
  std::int64_t length;  // values of a row, side by side
  std::int64_t stride;  // from the first value of a row to that of the next
};

struct ErrorSums {
  double squares = 0;          // sum of (reference - result)²
  double power = 0;            // sum of reference²
  std::int64_t nonfinite = 0;  // results that are not finite where the reference is
  float largest = 0;           // magnitude before rounding
};

// Their other arrays have the same stride, in values.
struct RoundingKernels {
  // Rounds to the nearest value of the format's grid, ties to even, and returns the largest magnitude before rounding
  // (without NaN; 0 for float32, which copies). `to` may be `from`.
  float (*round)(const Rows<const float>& from, float* to, Format format);

  // The same from float32 or bfloat16 values to codes of the format, which is not float32.
  float (*encode)(const Rows<const void>& from, Format stored, void* codes, Format format);

  // round() in place, and in the same pass the error against `reference`, which may be the values.
  ErrorSums (*round_and_compare)(const Rows<float>& values, const float* reference, Format format);
};

const RoundingKernels& portable_rounding();
const RoundingKernels& avx2_rounding();
const RoundingKernels& avx512_rounding();

}  // namespace pi0::formats
