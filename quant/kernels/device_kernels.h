// Rounding and error sums over a device's memory, as a table that a device's own code fills in. Calls only
// enqueue: results are there for whatever the same stream runs next. No LibTorch.
#pragma once

#include <cstdint>

#include "quant/error_stats.h"
#include "quant/format.h"
#include "quant/kernels/rounding_kernels.h"

namespace pi0::quant {

// How values lie in memory; `code8` only those of an 8-bit format.
enum class Storage { float32, bfloat16, float16, code8 };

// Rounds `count` values to `format`.
struct RoundCall {
  const void* in;
  Storage in_storage;  // float32 or bfloat16
  void* out;           // may be `in` where both lie alike
  Storage out_storage;
  std::int64_t count;
  Format format;
  std::uint32_t* overflowed;  // set to 1 where a finite value is beyond the format's largest
};

// Rounds a matmul's sums to `format`, and compares the results with the exact ones, sample by sample.
struct ResultCall {
  const void* sums;  // [samples, values]
  const float* bias;  // [columns], added to every row; null: none
  const void* exact_sums;  // compared with; may be `sums`; null: nothing is compared
  const float* exact_bias;
  Storage in_storage;  // of both sums: float32 or bfloat16
  void* out;           // may be `sums` where both lie alike
  Storage out_storage;  // float32 or bfloat16
  bool compare_stored;  // whether the error is that of what `out` holds, or of the rounded value before
  std::int64_t samples;
  std::int64_t values;   // of a sample: whole rows
  std::int64_t columns;
  Format format;
  std::uint32_t* overflowed;
  ErrorStats* errors;  // of sample i at i * errors_stride bytes: gets one call; where something is compared
  std::int64_t errors_stride;
  ErrorSums* partial;  // room for samples * partial_count(values)
};

// Parts that a sample is cut into, each summed by itself, so that sums do not depend on who is first.
constexpr std::int64_t partial_count(std::int64_t values) {
  constexpr std::int64_t values_per_part = 4096, most = 256;
  const std::int64_t parts = (values + values_per_part - 1) / values_per_part;
  return parts < 1 ? 1 : parts > most ? most : parts;
}

struct DeviceKernels {
  // `stream` is the device's own kind of handle.
  void (*round)(const RoundCall& call, void* stream);
  void (*finish)(const ResultCall& call, void* stream);
};

// Those for NVIDIA GPUs, on the current device; null in a build without CUDA.
const DeviceKernels* cuda_kernels();

}  // namespace pi0::quant
