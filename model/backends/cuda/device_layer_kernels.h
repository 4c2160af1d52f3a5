// The kernels of a model's layers on a device, as a table of functions. Calls only enqueue work: later work on the same
// stream sees the results. Tensors are in device memory; strides and sizes count elements. Rows and vectors are aligned
// to eight values, and their widths are multiples of eight. No LibTorch.
#pragma once

#include <cstdint>

namespace pi0::model {

// Norms of the rows of x + update·gate.
enum class NormKind { rms, layer };
struct NormCall {
  static constexpr int most_width = 8192;
  NormKind kind;
  bool in_bfloat16;             // x, update, sum and out; float32 otherwise
  bool parameters_in_bfloat16;  // scale and shift; float32 otherwise
  bool gate_in_bfloat16;        // gate likewise
  int rows, width;
  int rows_per_sample;
  float epsilon;
  const void* x;       // [rows, width]
  const void* update;  // [rows, width]; null: x is normalised as it is
  void* sum;           // [rows, width], gets x + update·gate; unused without an update
  void* out;           // [rows, width]
  const void* scale;   // [width]; the factor of an RMS norm is 1 + scale
  const void* shift;   // [width]; null: none
  const void* gate;    // [width]; null: 1
  std::int64_t sample_stride,
      gate_stride;  // of scale and shift, and of the gate; 0: the same for all samples
};

// Rotary embedding of queries or keys.
struct RotateCall {
  bool in_bfloat16;
  int samples, heads, tokens, size;
  const void* in;
  std::int64_t sample_stride, head_stride, token_stride;
  const void* cos;  // [samples, tokens, size]
  const void* sin;
  void* out;  // [samples, heads, tokens, size]
};

// GELU (tanh approximation) of x, times the factor.
struct GeluCall {
  bool in_bfloat16;
  int rows, columns;
  const void* x;
  const void* factor;       // null: 1
  std::int64_t row_stride;  // of both
  void* out;                // [rows, columns]
};

// Vectors of bfloat16 by sample, head and token.
struct HeadRows {
  const std::uint16_t* values;
  int tokens;
  std::int64_t sample_stride, head_stride, token_stride;
};

// softmax(QKᵀ)V of bfloat16 in two kernels: scores, then the rest.
enum class ScoreRounding {
  each_step,  // of scores, scaled scores and weights: AttentionForm::eager
  weights     // of the weights alone, before they are divided by their sum: AttentionForm::fused
};
struct AttentionCall {
  static constexpr int most_keys = 2048;
  ScoreRounding rounding;
  int samples, heads, groups, size;  // heads of a group share its keys and values
  HeadRows query;
  HeadRows keys[2], values[2];  // the prefix's (no tokens if there is none), and the query tokens' own
  float scale;
  const float* mask;   // [samples, query tokens, keys], added to scores; null: none
  float* scores;       // [samples, groups, heads of a group · query tokens, score_stride], written and read
  int score_stride;    // at least the keys, and even
  std::uint16_t* out;  // [samples, query tokens, heads, size]
};

// Products of few rows with weights, in bfloat16 with float32 sums.
struct FewRowsCall {
  static constexpr int most_parts = 3;
  struct Part {
    const std::uint16_t* weight;  // [out, in]
    const std::uint16_t* bias;    // [out]; null: none
    std::uint16_t* result;        // [rows, out]
    int out;
  };
  int rows, in;
  const std::uint16_t* x;  // [rows, in]
  int part_count;
  Part parts[most_parts];
  bool gated;  // the first result is GELU of its products, times the second's; there is no second result
};

struct DeviceLayers {
  // `stream` is the device's native handle.
  void (*norm)(const NormCall& call, void* stream);
  void (*rotate)(const RotateCall* calls, int count, void* stream);  // at most two
  void (*gelu)(const GeluCall& call, void* stream);
  void (*attend)(const AttentionCall& call, void* stream);
  void (*multiply_few_rows)(const FewRowsCall& call, void* stream);
};

// The kernels for NVIDIA GPUs, which run on the current device. Throws std::runtime_error that names the GPU of that
// index if it is too old for them.
const DeviceLayers* cuda_layers(int device);

}  // namespace pi0::model
