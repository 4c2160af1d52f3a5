// How the sums of a matrix product are accumulated, and the reference for every accumulator: one sum, one plain loop.
// The fast kernels (model/backends/cpu/gemm_ordered.h) equal it in all bits. Names are the same on command lines, in
// files and reports:
//
//   float32                   (default) an order of the kernels' own
//   bfloat16:N, float16:N     products in order, the sum rounded after every N of them; N from 1 to 4096
//   ipt, systolic             pi0-quant's functional models of hardware (chloe-wong/pi0-quant at 6b3e846)
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pi0::formats {

enum class AccumulatorKind {
  float32,
  bfloat16,
  float16,
  ipt,      // inner-product trees: 32 products and the sum so far are added in fixed point
  systolic  // a systolic array: every product is added to a bfloat16 sum
};

struct Accumulator {
  AccumulatorKind kind = AccumulatorKind::float32;
  int every = 0;  // products from one rounding to the next, of bfloat16 and float16; otherwise 0
  bool operator==(const Accumulator&) const = default;

  // Whether it says in which order products are added.
  bool is_ordered() const { return kind != AccumulatorKind::float32; }
};

// Throws std::invalid_argument that says what is wrong and what it may be.
Accumulator parse_accumulator(std::string_view name);

std::string name_of(const Accumulator& accumulator);
std::string file_name_of(const Accumulator& accumulator);  // '-' for ':'

// Whether the accumulator multiplies operands in a format of its own, ipt's and systolic's: e4m3 without subnormals,
// infinities and NaN. The bias is an operand too, and the first addend instead of the last.
bool encodes_operands(const Accumulator& accumulator);

// Whether attention's products are accumulated so. The accumulators that encode operands are of linears alone.
bool orders_attention(const Accumulator& accumulator);

// The value as such an operand: three bits of mantissa, half to even. NaN and magnitudes below 2^-6 become 0, those
// from 496 on 448; up to there the largest is 480. bfloat16 holds all of them.
float encoded_operand(float value);
void encode_operands(float* values, std::int64_t count);

// first + x[0] * weight[0] + x[1] * weight[1] + ... as the accumulator adds them. The operands of ipt and systolic are
// encoded, `first` too. Throws std::invalid_argument for float32, whose order is not defined.
//
// bfloat16:N and float16:N add by fused multiply-adds of float32, and round after every N products and after the last
// one: half to even, beyond the largest value to infinity. `first`, if not 0, is a sum so far, after a multiple of N.
float ordered_sum(const Accumulator& accumulator, const float* x, const float* weight, std::int64_t count, float first);

}  // namespace pi0::formats
