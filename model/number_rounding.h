// Rounds tensors to number formats, scales included. Plain casts go to rounding.h.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>

#include "model/rounding.h"
#include "quant/formats/scaled_rounding.h"

namespace pi0::model {

using formats::NumberFormat;
using formats::parse_number_format;
using formats::ScaledKernels;

// True only if rounding to the format changes no value of the dtype.
inline bool keeps(const NumberFormat& format, at::ScalarType dtype) {
  const auto plain = plain_cast(format);
  return plain && keeps(*plain, dtype);
}

// The scaled loops for an instruction set, and for the best one of this CPU.
const ScaledKernels& scaled_kernels(InstructionSet set);
const ScaledKernels& best_scaled_kernels();

// Rounds float32 activations [B, ..., In] along the last dimension. Scales are of one sample, an index of the first
// dimension, alone; a vector [In] is one sample. A `given` range takes the place of each sample's own (static scales),
// and values beyond it have overflowed. Throws c10::Error for another dtype, or on a GPU for scaled formats.
Rounded round_activations(const at::Tensor& values, const NumberFormat& format,
                          const std::optional<formats::Range>& given = {});

// Whether a value of any floating dtype lies beyond the range, if there is one. NaN does not.
bool exceeds(const at::Tensor& values, const std::optional<formats::Range>& range);

// Rounds a float32 matrix [rows, In] on the CPU as a weight: one tensor, and tiles are tiles. The result is dense.
// Throws c10::Error for anything else.
at::Tensor round_matrix(const at::Tensor& matrix, const NumberFormat& format);

// A weight [Out, In] as codes of a scaled format: what a file or an accelerator would hold of it. A value type; copies
// share memory.
struct CodedWeight {
  NumberFormat format;
  std::int64_t out = 0;
  std::int64_t in = 0;
  at::Tensor codes;        // [Out, bytes of a row] uint8
  at::Tensor scales;       // float32, as formats::CodeLayout says
  at::Tensor zero_points;  // as scales; undefined unless the format has them
  float tensor_scale = 1;  // the part of two_level's scales that all share

  bool defined() const { return codes.defined(); }
  formats::CodesFrom operand() const;
  at::Tensor values() const;  // [Out, In] float32
};

// Encodes a weight of any floating dtype.
CodedWeight encode(const at::Tensor& weight, const NumberFormat& format);

// The part of two_level's scales that a tensor shares; 1 for other formats.
float tensor_scale_of(const NumberFormat& format, const formats::Range& tensor);

// The range of all values [rows, length], for formats with a scale per tensor; else nothing is read.
formats::Range range_of(const ScaledKernels& kernels, const formats::Rows<const float>& values,
                        const NumberFormat& format);

}  // namespace pi0::model
