// The fast matmul of the model: weights held as codes in panels, widened into cache just before they
// are multiplied, float32 sums. Differs from at::linear in float32 by the order of its sums only.
// Knows of formats how their codes are stored and what those mean, and no statistics.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "model/backends/cpu/gemm_kernels.h"
#include "model/format_dtype.h"
#include "quant/formats/rounding_kernels.h"

namespace pi0::model {

std::string_view name_of(InstructionSet set);

// Those that this CPU has, the portable one first.
std::vector<InstructionSet> instruction_sets();

// The one that multiplies bfloat16 fastest here, measured in some milliseconds.
InstructionSet fastest_instruction_set();

const GemmKernels& gemm_kernels(InstructionSet set);

// A weight [Out, In] in panels (gemm_kernels.h). A value type; copies share memory.
struct PackedWeight {
  at::Tensor panels;  // [ceil(Out / 32), ceil(In / 2), 32, 2] in the codes' dtype
  std::int64_t out = 0;
  std::int64_t in = 0;

  Format format() const { return format_of(panels.scalar_type()); }
  std::int64_t panel_count() const { return panels.size(0); }
};

// Uninitialised memory for panels, in large pages if the system gives them: a product walks through all of
// it.
at::Tensor empty_panels(at::IntArrayRef shape, at::TensorOptions options);

// float32, bfloat16, float16 or 8-bit values [Out, In] as they are; float32 ones that bfloat16 can hold
// are stored as such.
PackedWeight pack_weight(const at::Tensor& weight);

// Some whole rows of a weight, [rows, In] as it stores them, to their codes [rows][In]; on any thread.
using EncodeRows = std::function<void(const formats::Rows<const void>& rows, void* codes)>;

// The weight in another format: `encode` is called once for every panel, with the rows [In] of its outputs.
// Scales along In, for a format that has them, would come from `encode` too, and lie in the result beside the codes.
PackedWeight encode_weight(const PackedWeight& weight, Format format, const EncodeRows& encode);

// Changes a row of floats in place, on any thread.
using ChangeRow = std::function<void(float* row, std::int64_t count)>;

// A vector [Out], or zeros when it is undefined, as floats and with zeros for the padding columns.
at::Tensor padded_terms(const at::Tensor& vector, const PackedWeight& weight);

// Rows of activations as the kernels read them.
struct PackedInput {
  at::Tensor lanes;  // [rows, stride] 32-bit
  Lane lane = Lane::float32;
  std::int64_t rows = 0;
  std::int64_t in = 0;
};

// x [..., In] float32 or bfloat16, row by row through `change` when there is one. As
// Lane::bfloat16_pair the changed values must be bfloat16's.
PackedInput pack_input(const GemmKernels& kernels, const at::Tensor& x, Lane lane, const ChangeRow& change);

// A run of any number of steps.
void multiply_stretch(const GemmKernels& kernels, Lane lane, const Run& stretch);

struct Product {
  const PackedInput& x;        // [rows, In]
  const PackedWeight& weight;  // [Out, In]
};

// Sums of some columns, all their products added up.
struct Strip {
  std::int64_t first_column;
  std::int64_t columns;  // at most 32; the rest is padding
  std::int64_t row_count;
  std::vector<float*> sums;  // of each product [row_count][32]; may be changed
};

// Multiplies products of the same rows and outputs. `finish`, if there is one, is called once for every
// strip, from several threads; what it leaves in sums[0] goes into those columns of `result`
// [..., Out], float32 or bfloat16.
void multiply(const GemmKernels& kernels, const std::vector<Product>& products,
              const std::function<void(const Strip&)>& finish, at::Tensor& result);

// x Wᵀ + b of x's shape and dtype; `bias` [Out] may be undefined.
at::Tensor fast_linear(const GemmKernels& kernels, const at::Tensor& x, const PackedWeight& weight,
                       const at::Tensor& bias);

}  // namespace pi0::model
