// The kernels of rounding and error sums on an NVIDIA GPU. device_loops.h and device_rows.h define what a block does;
// this file decides which block works on what.
#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "model/backends/cuda/cuda_block.h"
#include "model/backends/cuda/device_loops.h"
#include "model/backends/cuda/device_rows.h"

namespace pi0::model {
namespace {

constexpr int threads = 256;  // of a block
using Block = CudaBlock<threads>;

template <Format format, Format in, Format out, int count>
__global__ void round_kernel(RoundCall call) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * threads;
  if (round_values<format, in, out, count>(call, first, step)) set_flags(call);
}

// Block (x, y) finishes part x of observation y.
template <Format format, Format in, Format out, int count>
__global__ void finish_kernel(SumsCall call) {
  __shared__ Block::Shared shared;
  Block block(shared);
  finish_part<format, in, out, count>(block, call, static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x),
                                      static_cast<int>(gridDim.x));
}

template <Format input, int products, int tiles, int block_threads>
__global__ void __launch_bounds__(block_threads, 512 / block_threads) hooked_rows_kernel(HookedRowsCall call) {
  using RowsBlock = CudaBlock<block_threads>;
  __shared__ typename RowsBlock::Shared shared;
  __shared__ WarpSums<RowsBlock, tiles> sums[products];
  RowsBlock block(shared);
  hooked_rows_tile<input, products, tiles>(block, call, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y),
                                           sums);
}

void round_on_gpu(const RoundCall& call, void* stream) {
  if (call.count == 0) return;
  constexpr std::int64_t most_blocks = 8192;
  const int count = takes_eight(call) ? 8 : 1;
  const auto blocks = static_cast<unsigned>(std::min((call.count / count + threads - 1) / threads, most_blocks));
  with_constants(call.format, call.in_storage, call.out_storage, [&](auto format, auto in, auto out) {
    auto* const kernel = count == 8
                             ? round_kernel<decltype(format)::value, decltype(in)::value, decltype(out)::value, 8>
                             : round_kernel<decltype(format)::value, decltype(in)::value, decltype(out)::value, 1>;
    kernel<<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(call);
  });
  check_launch("rounding");
}

void finish_on_gpu(const SumsCall& call, void* stream) {
  const int observations = call.result.records * call.result.calls;
  if (observations == 0 || call.result.values == 0) return;
  const dim3 grid(static_cast<unsigned>(partial_count(call.result.values)), static_cast<unsigned>(observations));
  with_constants(call.result.format, call.in_storage, call.result.out_storage, [&](auto format, auto in, auto out) {
    if constexpr (decltype(out)::value == Format::float32 || decltype(out)::value == Format::bfloat16) {
      auto* const kernel = takes_eight(call)
                               ? finish_kernel<decltype(format)::value, decltype(in)::value, decltype(out)::value, 8>
                               : finish_kernel<decltype(format)::value, decltype(in)::value, decltype(out)::value, 1>;
      kernel<<<grid, threads, 0, static_cast<cudaStream_t>(stream)>>>(call);
    }
  });
  check_launch("rounding of results");
}

template <int tiles, int block_threads>
void hooked_rows(const HookedRowsCall& call, void* stream) {
  const dim3 grid(static_cast<unsigned>(output_tiles(call)),
                  static_cast<unsigned>(tiles_over(call.rows, tiles * tile_columns)));
  with_input(call.input, [&](auto input) {
    constexpr Format format = decltype(input)::value;
    auto* const kernel = call.compares_exact ? hooked_rows_kernel<format, 2, tiles, block_threads>
                                             : hooked_rows_kernel<format, 1, tiles, block_threads>;
    kernel<<<grid, block_threads, 0, static_cast<cudaStream_t>(stream)>>>(call);
  });
}

void multiply_few_rows_on_gpu(const HookedRowsCall& call, void* stream) {
  if (call.rows == 0) return;
  require_matrix_units();
  if (call.rows <= tile_columns) {
    hooked_rows<1, threads>(call, stream);
  } else if (call.rows > 2 * tile_columns) {
    hooked_rows<4, threads>(call, stream);
  } else if (call.in < many_terms) {
    hooked_rows<2, threads>(call, stream);
  } else {
    hooked_rows<2, 2 * threads>(call, stream);
  }
  check_launch("product of few rows");
}

constexpr DeviceKernels kernels = {round_on_gpu, finish_on_gpu, multiply_few_rows_on_gpu};

}  // namespace

const DeviceKernels* cuda_kernels() { return &kernels; }

}  // namespace pi0::model
