// The fast matmul of the model. Weights are stored as codes in panels, and widened into cache just before they are
// multiplied; sums are float32. Differs from at::linear in float32 only by the order of sums. Knows how formats are
// encoded, but nothing of statistics.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "model/backends/cpu/gemm_kernels.h"
#include "model/format_dtype.h"
#include "quant/formats/rounding_kernels.h"

namespace pi0::model {

std::string_view name_of(InstructionSet set);

// The instruction sets of this CPU, the portable one first.
std::vector<InstructionSet> instruction_sets();

// The one that multiplies bfloat16 fastest on this CPU. Measures for some milliseconds.
InstructionSet fastest_instruction_set();

const GemmKernels& gemm_kernels(InstructionSet set);

struct CodedScales;

// A weight [Out, In] in panels (gemm_kernels.h). A value type; copies share memory.
struct PackedWeight {
  at::Tensor panels;  // [ceil(Out / 32), ceil(In / 2), 32, 2] in the codes' dtype
  std::int64_t out = 0;
  std::int64_t in = 0;
  std::shared_ptr<const CodedScales> coded = {};  // of a scaled format (coded_panels.h); null: a plain cast

  Format format() const { return format_of(panels.scalar_type()); }  // of a plain cast
  std::int64_t panel_count() const { return panels.size(0); }
};

inline std::int64_t divided_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

// Uninitialised memory for panels, in huge pages if the system has them: a product reads all of it. From 2 MiB on it
// begins at a multiple of that. Throws c10::OutOfMemoryError.
at::Tensor empty_panels(at::IntArrayRef shape, at::TensorOptions options);

// The shape of the panels of a weight that is stored in a plain cast.
std::vector<std::int64_t> panel_shape(std::int64_t out, std::int64_t in);

// The number of this order of codes in panels. Files name it: give another order another number.
inline constexpr std::int64_t panel_layout = 1;

// The panels that pack_weight() makes of a weight that is rounded to bfloat16, or to float32, from its stored panels of
// float32, bfloat16 or float16. Stored panels of bfloat16 are returned as they are.
at::Tensor panels_for(const at::Tensor& stored, at::ScalarType rounding);

// The values of a packed weight of a plain cast, [Out, In] of the panels' dtype.
at::Tensor unpack_weight(const PackedWeight& weight);

// Packs a weight [Out, In] of float32, bfloat16, float16 or 8-bit values without changing them. A float32 weight whose
// values all fit bfloat16 is stored as bfloat16.
PackedWeight pack_weight(const at::Tensor& weight);

// Changes a row of floats in place. Called on any thread.
using ChangeRow = std::function<void(float* row, std::int64_t count)>;

// A vector [Out], or zeros when it is undefined, as floats and with zeros for the padding columns.
at::Tensor padded_terms(const at::Tensor& vector, const PackedWeight& weight);

// Rows of activations as the kernels read them.
struct PackedInput {
  at::Tensor lanes;  // [rows, steps or more] 32-bit; may be strided, and the memory of x itself
  Lane lane = Lane::float32;
  std::int64_t rows = 0;
  std::int64_t in = 0;
  at::Tensor scales = {};        // [rows, groups] float32, for the sums; undefined: 1
  std::int64_t scale_group = 0;  // inputs that share a scale; In if a row does
};

// Uninitialised, [..., Out] for x [..., In], of x's dtype. Rows are an odd number of cache lines apart, so that
// pack_input() need not copy them if Out is even.
at::Tensor padded_result(const at::Tensor& x, std::int64_t out_features);

PackedInput empty_input(Lane lane, std::int64_t rows, std::int64_t in);  // uninitialised, without scales

// Packs x [..., In] of float32 or bfloat16, after `change`, if any, was applied to each row. For Lane::bfloat16_pair
// the changed values must fit bfloat16. Unchanged values are not copied if their memory already is lanes, in rows as
// padded_result() makes them.
PackedInput pack_input(const GemmKernels& kernels, const at::Tensor& x, Lane lane, const ChangeRow& change);

// A run of any number of steps; and one of sums in order, see GemmKernels.
void multiply_stretch(const GemmKernels& kernels, Lane lane, const Run& stretch);
void multiply_stretch_in_order(const GemmKernels& kernels, const formats::Accumulator& accumulator, const Run& stretch,
                               std::int64_t first_step, bool is_last);

// Under another accumulator than float32 the input's lanes are float32 without scales, and every sum is that of
// formats::ordered_sum in all bits.
struct Product {
  const PackedInput& x;                   // [rows, In]
  const PackedWeight& weight;             // [Out, In]
  formats::Accumulator accumulator = {};  // ipt and systolic: the operands are encoded
  at::Tensor first = {};                  // padded_terms() that such sums begin with; undefined: 0
};

// Finished sums of some columns of the result.
struct Strip {
  std::int64_t first_column;
  std::int64_t columns;  // at most 32; the rest is padding
  std::int64_t row_count;
  std::vector<float*> sums;  // of each product [row_count][32]; may be changed
};

// Multiplies products of the same rows and outputs. `finish`, if there is one, is called once for every
// strip, from several threads; what it leaves in sums[0] is stored in those columns of `result`
// [..., Out], float32 or bfloat16, whose rows are evenly spaced.
void multiply(const GemmKernels& kernels, const std::vector<Product>& products,
              const std::function<void(const Strip&)>& finish, at::Tensor& result);

}  // namespace pi0::model
