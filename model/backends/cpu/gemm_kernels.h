// Loops of the fast kernels over plain memory, one table per instruction set. No LibTorch, no threads.
//
// A weight [Out, In] is kept in panels of 32 outputs: [ceil(Out/32)][ceil(In/2)][32][2] codes, padded
// with zeros, so that a panel is read once from its first to its last byte. Before it is multiplied, a
// stretch of a panel is widened into cache to 32-bit lanes [steps][32]: a step is one input as a float,
// or two inputs as a pair of bfloat16.
#pragma once

#include <cstdint>

#include "model/backends/cpu/coded_kernels.h"
#include "model/backends/cpu/layer_kernels.h"
#include "quant/formats/accumulator.h"
#include "quant/formats/format.h"

namespace pi0::model {

using formats::Format;

constexpr std::int64_t panel_width = 32;  // outputs

enum class Lane {
  float32,       // one input per step
  bfloat16_pair  // two inputs per step; exact for formats that fit bfloat16
};

enum class InstructionSet { portable, avx2, avx512, avx512_bf16, amx_bf16 };

constexpr std::int64_t most_panels = 16;  // of a run
constexpr std::int64_t run_steps = 128;   // whose lanes fit the first-level cache

// Memory that is read soon, which some loops prefetch.
struct Ahead {
  const std::uint8_t* from = nullptr;  // null: none
  std::int64_t step_bytes = 0;         // for each step of the run
};

// Some rows of x [rows][steps] times the lanes [steps][32] of some panels.
struct Run {
  const std::uint32_t* x;
  std::int64_t stride;  // lanes from row to row
  std::int64_t rows;
  std::int64_t steps;                 // at most run_steps
  const std::uint32_t* const* lanes;  // of each panel
  std::int64_t panels;                // at most most_panels
  float* sums;                        // [panels][.., 32]; panels lie `sums_stride` floats apart
  std::int64_t sums_stride;
  bool go_on;        // add to the sums that are there
  Ahead ahead = {};  // only of a run of one panel
};

struct GemmKernels {
  InstructionSet set;

  // `pairs` pairs of inputs of one panel, codes [pairs][32][2], to lanes [pairs * 2][32] of float32 or
  // [pairs][32] of bfloat16_pair.
  void (*widen)(const void* codes, Format format, Lane lane, std::int64_t pairs, std::uint32_t* lanes);

  // The same for codes of scaled formats, to elements; and these to values, in place.
  void (*widen_elements)(const void* codes, const CodeTable& table, Lane lane, std::int64_t pairs,
                         std::uint32_t* lanes);
  void (*scale_elements)(std::uint32_t* lanes, Lane lane, std::int64_t pairs, const PanelScales& by);

  void (*multiply)(Lane lane, const Run& run);

  // Goes on with the sums that are there, from step `first_step` of the whole sum on, as formats::ordered_sum does;
  // lanes are float32. `is_last`: the sums end with this run. For ipt runs begin at multiples of 32 steps.
  void (*multiply_in_order)(const formats::Accumulator& accumulator, const Run& run, std::int64_t first_step,
                            bool is_last);

  void (*add)(float* sums, const float* more, std::int64_t count);

  // Sets sums [rows][32] to more [rows][32], which may be the sums, times the scales.
  void (*add_scaled)(float* sums, const float* more, std::int64_t rows, const SumScales& by);

  // Adds terms [32] to every row of sums [rows][32].
  void (*add_terms)(float* sums, std::int64_t rows, const float* terms);

  // Rows of finished sums, in `panels` panels [rows][32], to rows of `columns` float32 or bfloat16
  // values that lie `stride` values apart.
  void (*store)(const float* sums, std::int64_t rows, std::int64_t panels, std::int64_t columns, void* out,
                std::int64_t stride, bool as_bfloat16);

  // Between bfloat16 and float, `count` values, by the rule of quant/formats/bfloat16.h.
  void (*widen_bfloat16)(const std::uint16_t* from, float* to, std::int64_t count);
  void (*narrow_to_bfloat16)(const float* from, std::uint16_t* to, std::int64_t count);

  bool has_pairs;  // whether Lane::bfloat16_pair is supported

  LayerKernels layers;
};

const GemmKernels& portable_gemm();
const GemmKernels& avx2_gemm();
const GemmKernels& avx512_gemm();
const GemmKernels& avx512_bf16_gemm();
const GemmKernels& amx_bf16_gemm();

// Asks the system to let this process use AMX tiles. Must have returned true before amx_bf16_gemm is used.
bool may_use_amx();

}  // namespace pi0::model
