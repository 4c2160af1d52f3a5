// Rounds tensors to a format: the one door to the kernels, which it picks by device.
#pragma once

#include <ATen/ATen.h>

#include "quant/format.h"

namespace pi0::quant {

struct Rounded {
  at::Tensor values;         // on the format's grid
  bool overflowed = false;   // a finite value was beyond the format's largest
};

// [...] float32 to the same. float32 gives its argument back. Throws c10::Error for another dtype.
Rounded round_to(const at::Tensor& values, Format format);

// Values that are on the format's grid, held in as many bits as the format has, and back to float32.
at::Tensor to_codes(const at::Tensor& rounded, Format format);
at::ScalarType code_dtype(Format format);
inline at::Tensor from_codes(const at::Tensor& codes) { return codes.to(at::kFloat); }

// A parameter of any floating dtype rounded and held as codes, a slice at a time, so that a large one
// needs no float32 copy. Result: codes of the parameter's shape.
Rounded round_to_codes(const at::Tensor& parameter, Format format);

}  // namespace pi0::quant
