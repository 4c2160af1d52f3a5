// Rounding and error sums in device memory, as a table of functions. Calls only enqueue work: later work on the same
// stream sees the results. No LibTorch.
#pragma once

#include <cstdint>

#include "quant/formats/error_stats.h"
#include "quant/formats/format.h"

namespace pi0::model {

using formats::ErrorStats;
using formats::Format;

// Rounds `count` values to `format`.
struct RoundCall {
  const void* in;
  Format in_storage;   // how values are stored: float32 or bfloat16
  void* out;           // may be `in` if both storages are equal
  Format out_storage;  // float32, bfloat16 or `format`
  std::int64_t count;
  Format format;
  static constexpr int most_flags = 3;
  int flag_count;
  std::uint32_t* overflowed[most_flags];  // all set to 1 if a finite value exceeds the format's largest
};

constexpr std::int64_t part_bytes = 3 * sizeof(double);

// How a matmul's sums are finished: rounded to `format` and compared with the exact ones. Observations are stored one
// after the other.
struct ResultCall {
  const float* bias;  // [columns], added to every row; null: none
  const float* exact_bias;
  void* out;            // may be the sums if both storages are equal
  Format out_storage;   // float32 or bfloat16
  bool compare_stored;  // whether errors are of the values as stored in `out`, or of the rounded values before
  int records;          // to add errors to
  int calls;            // reference calls that this one joins: observation i is call i / records of record i % records
  int values;           // of an observation: whole rows
  int columns;
  Format format;
  std::uint32_t* overflowed;  // set to 1 if a finite value exceeds the format's largest
  // Record i is at i * record_stride bytes. Null: nothing is compared. `arrived` counts finished parts; it is zero
  // before and after a call.
  ErrorStats* errors;
  std::uint32_t* arrived;
  std::int64_t record_stride;
  void* partial;  // memory for each observation's parts, part_bytes each
};

struct SumsCall {
  const void* sums;        // [observations, values]
  const void* exact_sums;  // compared with; may be `sums`
  Format in_storage;       // of both: float32 or bfloat16
  ResultCall result;
};

// The number of parts of an observation. Each is summed by itself, so that errors do not depend on the order in which
// blocks run.
constexpr int partial_count(std::int64_t values) {
  constexpr std::int64_t values_per_part = 2048, most = 1024;
  const std::int64_t parts = (values + values_per_part - 1) / values_per_part;
  return static_cast<int>(parts < 1 ? 1 : parts > most ? most : parts);
}

// Quantized linears of few rows x, one observation, in one kernel: rounds x and multiplies it with weights that are
// rounded already.
struct HookedRowsCall {
  static constexpr int most_rows = 64, most_parts = 3;
  struct Part {
    const void* weight;                 // [out, in], values of the input's format: as codes, or bfloat16 for float32
    const std::uint16_t* exact_weight;  // [out, in] bfloat16
    int out;
    std::uint32_t* input_overflowed;
    ResultCall result;  // of columns `out` in bfloat16
  };
  int rows, in;            // `in` is a multiple of eight, and rows are aligned to eight values
  const std::uint16_t* x;  // [rows, in] bfloat16
  Format input;            // that x is rounded to
  bool compares_exact;     // whether results are compared with the product of the exact operands; else with their own
  int part_count;
  Part parts[most_parts];
};

// The number of parts of a linear's result: one for each tile of outputs and of rows.
constexpr int partial_count(int rows, int out) {
  constexpr int tile_rows = 8, tile_outputs = 16;  // the smallest tiles of a block
  return ((out + tile_outputs - 1) / tile_outputs) * ((rows + tile_rows - 1) / tile_rows);
}

struct DeviceKernels {
  // `stream` is the device's native handle.
  void (*round)(const RoundCall& call, void* stream);
  void (*finish)(const SumsCall& call, void* stream);
  void (*multiply_few_rows)(const HookedRowsCall& call, void* stream);
};

// The kernels for NVIDIA GPUs, which run on the current device; null in a build without CUDA.
const DeviceKernels* cuda_kernels();

}  // namespace pi0::model
