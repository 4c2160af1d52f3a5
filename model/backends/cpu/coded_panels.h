// Weights of scaled formats in panels, and activations as the elements and scales that the kernels multiply.
//
// Lanes of float32 hold values, scales included. Lanes of pairs of bfloat16 hold what is exact there, and the rest of a
// scale is applied to sums (formats::ScaleKind):
//   power_of_two  the lanes hold values; nothing is left
//   float8_group  elements times the group's scale; the tensor's scale is left
//   row           elements; the row's scale is left, applied once
//   group         elements; the groups' scales are left, and each group is summed by itself
// So only the order of sums and of multiplications by scales differs from the reference.
#pragma once

#include <ATen/ATen.h>

#include <memory>

#include "model/backends/cpu/coded_kernels.h"
#include "model/backends/cpu/gemm.h"
#include "model/number_rounding.h"

namespace pi0::model {

// What a packed weight of a scaled format has beside its panels, which are uint8 [ceil(Out / 32), ceil(In / 2), 32]
// with two codes to a byte, or [.., .., 32, 2].
struct CodedScales {
  NumberFormat format;
  CodeTable table;
  at::Tensor scales;       // [ceil(Out / 32), groups, 32] float32; undefined: 1
  at::Tensor zero_points;  // likewise; undefined: 0
  std::int64_t group;      // inputs that share a scale; In if a row does
  float tensor_scale = 1;  // of two_level, whose `scales` lack it
};

// Packs a weight's codes as they are.
PackedWeight pack_coded(const CodedWeight& weight);

// Whether the elements of the format are exact in bfloat16, so that pairs may hold them.
bool fits_pairs(const NumberFormat& format);

// Packs x [B, ..., In] of float32 or bfloat16, rounded to a format that is no plain cast. For `given` see
// round_activations().
PackedInput pack_scaled_input(const GemmKernels& kernels, const at::Tensor& x, Lane lane, const NumberFormat& format,
                              const std::optional<formats::Range>& given = {});

}  // namespace pi0::model
