// Rounding, encoding and decoding of rows in any number format: a table of functions per instruction set, all equal in
// all bits. No threads. `to` has the stride of `from`.
//
// Values are what torchao 0.18, gfloat 0.5.2 and pi0-quant's HEAD make of them, quirks included:
// - a NaN makes all values NaN that share its scale; so does an infinity, except where a scale is E8M0 or one_level,
//   and of `asymmetric`, where infinities are what conversions of NaN on x86 make of them;
// - floats by absmax and nvfp4 (0 / 0) make NaN of values that are all zero; `scaled` and `po2` leave those. Elements
//   without a code for NaN do so too where a scale underflows;
// - where the E8M0 scale would be 2^-127 or less, values are divided by 2^-126 (by `rceil` by 1) and multiplied by
//   2^-127;
// - integers have no negative zero, floats keep it.
// po2 of a NaN or infinity is an error in pi0-quant, and a NaN in mxint8 one in gfloat: here all become NaN. So does an
// nvfp4 tensor of magnitudes below 2^-116, where torchao multiplies by infinity.
#pragma once

#include <cstdint>

#include "quant/formats/number_format.h"
#include "quant/formats/rounding_kernels.h"

namespace pi0::formats {

// The range of some values and zero. Both limits are NaN if a value is.
struct Range {
  float smallest = 0;  // at most 0
  float largest = 0;   // at least 0
  bool operator==(const Range&) const = default;
};
Range combined(const Range& a, const Range& b);

// Where the codes of a [rows, length] operand and their scales lie. A row's codes are a string of bits, the lowest bits
// of its first byte first; rows start at whole bytes. Integers are two's complement.
struct CodeLayout {
  std::int64_t row_bytes;
  std::int64_t scales_per_row;  // 0 for a plain cast
  std::int64_t rows_per_scale;  // that share a row of scales: 1, a tile's, or more than there are for a tensor

  std::int64_t scale_rows(std::int64_t rows) const;
};
CodeLayout layout_of(const NumberFormat& format, std::int64_t length);

// A whole operand. Scales are [scale_rows, scales_per_row]; so are zero points, which only asymmetric integers have.
// A value is (element - zero point) * scale; mxint8's scale holds the 1/64 of its elements.
template <class Byte, class Float>
struct CodedOperand {
  Byte* codes;
  Float* scales;
  Float* zero_points;
};
using CodesTo = CodedOperand<std::uint8_t, float>;
using CodesFrom = CodedOperand<const std::uint8_t, const float>;

// `tensor` is the range of the whole tensor, which only Granularity::tensor and two_level read. Rows of a tile format
// start at a multiple of the tile's rows; all rows of a tile are in one call.
struct ScaledKernels {
  // Codes of that many bits between a byte each and a row's string of bits.
  void (*pack)(const std::uint8_t* codes, std::int64_t count, int bits, std::uint8_t* packed);
  void (*unpack)(const std::uint8_t* packed, std::int64_t count, int bits, std::uint8_t* codes);

  Range (*range)(const Rows<const float>& values);

  // `to` may be `from`.
  void (*round)(const Rows<const float>& from, float* to, const NumberFormat& format, const Range& tensor);

  // round() in place, and the error against `reference`, which has the stride of the values and is apart from them.
  ErrorSums (*round_and_compare)(const Rows<float>& values, const float* reference, const NumberFormat& format,
                                 const Range& tensor);

  // The rest is of formats whose codes take at most 8 bits. `from` are rows of the operand from `first_row` on. Every
  // call writes a tensor's only scale. In a plain cast to fewer than 8 bits a NaN has the largest value's code.
  void (*encode)(const Rows<const float>& from, const NumberFormat& format, const Range& tensor, std::int64_t first_row,
                 const CodesTo& operand);

  // What round() gives, in all bits but a NaN's.
  void (*decode)(const CodesFrom& operand, const NumberFormat& format, std::int64_t first_row, const Rows<float>& to);

  // Elements less their zero points, without scales, as bfloat16, which holds them exactly.
  void (*decode_elements)(const CodesFrom& operand, const NumberFormat& format, std::int64_t first_row,
                          const Rows<std::uint16_t>& to);
};

const ScaledKernels& portable_scaled();
const ScaledKernels& avx2_scaled();
const ScaledKernels& avx512_scaled();

}  // namespace pi0::formats
