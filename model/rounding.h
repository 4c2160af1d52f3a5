// Rounds tensors to a format: the one door to the kernels, which it picks by device.
#pragma once

#include <ATen/ATen.h>

#include "model/backends/cpu/gemm.h"
#include "quant/formats/format.h"
#include "quant/formats/rounding_kernels.h"

namespace pi0::model {

using formats::ErrorSums;
using formats::Format;
using formats::RoundingKernels;

// Whether rounding values of a dtype to the format changes none of them.
inline bool keeps(Format format, at::ScalarType dtype) {
  return format == Format::float32 || (format == Format::bfloat16 && dtype == at::kBFloat16);
}

struct Rounded {
  at::Tensor values;        // on the format's grid
  bool overflowed = false;  // a finite value was beyond the format's largest
};

// The loops that go with an instruction set, and those of the best one that this CPU has.
const RoundingKernels& rounding_kernels(InstructionSet set);
const RoundingKernels& best_rounding_kernels();

// The same by libtorch's casts, for any device: the slow oracle that the loops must equal.
at::Tensor round_by_casts(const at::Tensor& values, Format format);

// Whether rounding carries a magnitude past the format's largest value: from half a step above it on.
bool overflows(float magnitude, Format format);

// [..., length] float32 to the same, row by row. float32 gives its argument back. Throws c10::Error for another dtype.
Rounded round_to(const at::Tensor& values, Format format);

// Of float32 or bfloat16 values on a GPU, held as `stored`. Throws c10::Error in a build without CUDA.
Rounded round_cuda_tensor(const at::Tensor& values, Format format, at::ScalarType stored);

// Values that are on the format's grid, held in as many bits as the format has, and back to float32.
at::Tensor to_codes(const at::Tensor& rounded, Format format);
inline at::Tensor from_codes(const at::Tensor& codes) { return codes.to(at::kFloat); }

// A parameter [..., In] of any floating dtype rounded and held as codes, some rows at a time, so that a large one
// needs no float32 copy. Result: codes of the parameter's shape.
Rounded round_to_codes(const at::Tensor& parameter, Format format);

// The same for a packed weight, by rows [In] as well: its panels keep their order.
struct RoundedWeight {
  PackedWeight weight;
  bool overflowed = false;
};
RoundedWeight round_to_codes(const RoundingKernels& kernels, const PackedWeight& weight, Format format);

}  // namespace pi0::model
