// Rounds tensors to a format with the kernels of their device.
#pragma once

#include <ATen/ATen.h>

#include "model/backends/cpu/gemm.h"
#include "quant/formats/format.h"
#include "quant/formats/rounding_kernels.h"

namespace pi0::model {

using formats::ErrorSums;
using formats::Format;
using formats::RoundingKernels;

// True only if rounding to the format changes no value of the dtype.
inline bool keeps(Format format, at::ScalarType dtype) {
  return format == Format::float32 || (format == Format::bfloat16 && dtype == at::kBFloat16);
}

struct Rounded {
  at::Tensor values;        // on the format's grid
  bool overflowed = false;  // a finite value was beyond the format's largest
};

// The rounding loops for an instruction set, and for the best one of this CPU.
const RoundingKernels& rounding_kernels(InstructionSet set);
const RoundingKernels& best_rounding_kernels();

// Rounds with LibTorch's casts, on any device: slow, and what tests compare the loops with.
at::Tensor round_by_casts(const at::Tensor& values, Format format);

// Whether a finite magnitude rounds to beyond the format's largest value: from half a step above that on.
bool overflows(float magnitude, Format format);

// Rounds float32 values of any shape. Format::float32 returns its argument. Throws c10::Error for another dtype.
Rounded round_to(const at::Tensor& values, Format format);

// Rounds float32 or bfloat16 values on a GPU. The result has the dtype `stored`. Throws c10::Error in a build without
// CUDA.
Rounded round_cuda_tensor(const at::Tensor& values, Format format, at::ScalarType stored);

// Values on the format's grid to its codes, and codes back to float32.
at::Tensor to_codes(const at::Tensor& rounded, Format format);
inline at::Tensor from_codes(const at::Tensor& codes) { return codes.to(at::kFloat); }

// Rounds a parameter [..., In] of any floating dtype to codes of the same shape. Works on some rows at a time, so that
// a large parameter needs no float32 copy.
Rounded round_to_codes(const at::Tensor& parameter, Format format);

// The same for a packed weight, whose layout stays.
struct RoundedWeight {
  PackedWeight weight;
  bool overflowed = false;
};
RoundedWeight round_to_codes(const RoundingKernels& kernels, const PackedWeight& weight, Format format);

}  // namespace pi0::model
