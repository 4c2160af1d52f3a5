// What the kernels need to multiply codes of scaled formats, over plain memory. No LibTorch, no threads.
#pragma once

#include <cstdint>

namespace pi0::model {

// The elements of a format's codes. Codes of at most 4 bits lie two to a byte, those of a pair of inputs, the first one
// in the lower half; others take a byte each.
struct alignas(64) CodeTable {
  std::uint8_t low[256];   // of the element as bfloat16, which holds it exactly
  std::uint8_t high[256];  // likewise
  float values[256];
  bool two_to_a_byte;
};

// Values that the elements of a panel's 32 outputs become: (element - zero point) * scale. Each [32].
struct PanelScales {
  const float* zero_points;  // null: 0
  const float* scales;
};

// What sums [rows][32] of elements are multiplied by.
struct SumScales {
  const float* rows;
  std::int64_t row_stride;  // floats from one row's scale to the next; 0: they share one
  const float* columns;     // [32]
  bool go_on;               // add to the sums that are there
};

}  // namespace pi0::model
