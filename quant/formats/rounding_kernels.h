// Rounding and error sums over rows of plain memory, a table per instruction set. No threads.
#pragma once

#include <cstdint>

#include "quant/formats/format.h"

namespace pi0::formats {

// Rows of values: of an operand whole ones, along the dimension that a product sums over; of a result stretches along
// its channels. Neighbours in a row may share a scale.
template <class Value>
struct Rows {
  Value* values;
  std::int64_t rows;
  std::int64_t length;  // values of a row, side by side
  std::int64_t stride;  // values from a row's first to the next row's
};

struct ErrorSums {
  double squares = 0;          // sum of (reference - result)²
  double power = 0;            // sum of reference²
  std::int64_t nonfinite = 0;  // results that are not finite where the reference is
  float largest = 0;           // magnitude before rounding
};

// Whatever else they are given lies in memory as the rows do: as many values from row to row.
struct RoundingKernels {
  // Rounds rows to the nearest of the format's grid, ties to even, and returns the largest magnitude among them
  // before rounding (NaN left out; 0 for float32, which copies). `to` may be `from`.
  float (*round)(const Rows<const float>& from, float* to, Format format);

  // The same from values that are stored as float32 or bfloat16, to codes of the format, which is not float32.
  float (*encode)(const Rows<const void>& from, Format stored, void* codes, Format format);

  // round() in place, and in the same pass how far the result is from `reference`, which may be the values.
  ErrorSums (*round_and_compare)(const Rows<float>& values, const float* reference, Format format);
};

const RoundingKernels& portable_rounding();
const RoundingKernels& avx2_rounding();
const RoundingKernels& avx512_rounding();

}  // namespace pi0::formats
