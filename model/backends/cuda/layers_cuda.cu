// The kernels of a model's layers on an NVIDIA GPU. device_layers.h, device_attention.h and device_product.h define
// what a block does; this file decides which block works on what.
#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "model/backends/cuda/cuda_block.h"
#include "model/backends/cuda/device_attention.h"
#include "model/backends/cuda/device_layers.h"
#include "model/backends/cuda/device_product.h"

namespace pi0::model {
namespace {

constexpr int threads = 256;  // of most kernels' blocks

cudaStream_t on(void* stream) { return static_cast<cudaStream_t>(stream); }

unsigned tiles_of(int count, int tile) { return static_cast<unsigned>(tiles_over(count, tile)); }

template <class Dtype, int turns>
__global__ void norm_kernel(NormCall call) {
  __shared__ CudaBlock<threads>::Shared shared;
  CudaBlock<threads> block{shared};
  norm_row<Dtype, turns>(block, call, static_cast<int>(blockIdx.x));
}

template <class Dtype>
void norm_rows(const NormCall& call, void* stream) {
  const auto rows = static_cast<unsigned>(call.rows);
  if (call.width <= threads * 8) {
    norm_kernel<Dtype, 1><<<rows, threads, 0, on(stream)>>>(call);
  } else {
    norm_kernel<Dtype, NormCall::most_width / 8 / threads><<<rows, threads, 0, on(stream)>>>(call);
  }
}

void norm_on_gpu(const NormCall& call, void* stream) {
  if (call.rows == 0) return;
  call.in_bfloat16 ? norm_rows<AsBfloat16>(call, stream) : norm_rows<AsFloat>(call, stream);
  check_launch("norm");
}

struct RotateCalls {
  RotateCall calls[2];
};

// blockIdx.y is the call.
template <class Dtype>
__global__ void rotate_kernel(RotateCalls both) {
  rotate_pairs<Dtype>(both.calls[blockIdx.y], static_cast<int>(blockIdx.x * threads + threadIdx.x),
                      static_cast<int>(gridDim.x) * threads);
}

void rotate_on_gpu(const RotateCall* calls, int count, void* stream) {
  RotateCalls both{};
  int most = 0;
  for (int i = 0; i < count; ++i) {
    both.calls[i] = calls[i];
    most = std::max(most, calls[i].samples * calls[i].heads * calls[i].tokens * calls[i].size / 2);
  }
  if (most == 0) return;
  const dim3 grid(tiles_of(most, threads), static_cast<unsigned>(count));
  if (calls[0].in_bfloat16) {
    rotate_kernel<AsBfloat16><<<grid, threads, 0, on(stream)>>>(both);
  } else {
    rotate_kernel<AsFloat><<<grid, threads, 0, on(stream)>>>(both);
  }
  check_launch("rotary embedding");
}

template <class Dtype>
__global__ void gelu_kernel(GeluCall call) {
  gelu_values<Dtype>(call, static_cast<int>(blockIdx.x * threads + threadIdx.x), static_cast<int>(gridDim.x) * threads);
}

void gelu_on_gpu(const GeluCall& call, void* stream) {
  if (call.rows == 0 || call.columns == 0) return;
  const unsigned blocks = tiles_of(call.rows * (call.columns / 8), threads);
  if (call.in_bfloat16) {
    gelu_kernel<AsBfloat16><<<blocks, threads, 0, on(stream)>>>(call);
  } else {
    gelu_kernel<AsFloat><<<blocks, threads, 0, on(stream)>>>(call);
  }
  check_launch("GELU");
}

constexpr int score_threads = 128;

template <int down, int across>
__global__ void score_kernel(AttentionCall call) {
  __shared__ CudaBlock<score_threads>::Shared shared;
  CudaBlock<score_threads> block{shared};
  constexpr int keys = across * tile_columns * score_threads / warp_size;
  score_tile<down, across>(block, call, static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.y) * down * tile_rows,
                           static_cast<int>(blockIdx.x) * keys);
}

template <int down, int across>
void score_rows(const AttentionCall& call, int rows, int keys, unsigned groups, void* stream) {
  const dim3 grid(tiles_of(keys, across * tile_columns * score_threads / warp_size), tiles_of(rows, down * tile_rows),
                  groups);
  score_kernel<down, across><<<grid, score_threads, 0, on(stream)>>>(call);
  check_launch("attention scores");
}

template <class Shape>
__global__ void __launch_bounds__(threads) weigh_kernel(AttentionCall call) {
  extern __shared__ __align__(16) unsigned char weights[];
  __shared__ CudaBlock<threads>::Shared shared;
  __shared__ float factors[Shape::rows];
  CudaBlock<threads> block{shared};
  weigh_tile<Shape>(block, call, static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.x) * Shape::rows,
                    static_cast<int>(blockIdx.y) * Shape::across * value_columns, weights, factors);
}

template <int down, int across, int lane_keys>
void weigh_rows(const AttentionCall& call, int rows, int keys, unsigned groups, void* stream) {
  using Shape = WeighShape<CudaBlock<threads>, down, across, lane_keys>;
  constexpr int most_bytes = Shape::bytes(lane_keys * warp_size);
  static_assert(most_bytes <= 99 << 10);  // shared memory that a block can request on every supported GPU
  cudaFuncSetAttribute(weigh_kernel<Shape>, cudaFuncAttributeMaxDynamicSharedMemorySize, most_bytes);
  const dim3 grid(tiles_of(rows, Shape::rows), tiles_of(call.size, across * value_columns), groups);
  weigh_kernel<Shape><<<grid, threads, Shape::bytes(keys), on(stream)>>>(call);
  check_launch("attention");
}

void attend_on_gpu(const AttentionCall& call, void* stream) {
  const int rows = call.heads / call.groups * call.query.tokens;
  const int keys = call.keys[0].tokens + call.keys[1].tokens;
  const auto groups = static_cast<unsigned>(call.samples * call.groups);
  if (rows == 0 || groups == 0) return;
  require_matrix_units();
  // With many rows, each warp takes more of them, to reuse what it has read. Few rows are spread over more warps.
  constexpr int many = 1024;
  if (static_cast<int>(groups) * rows < many) {
    score_rows<1, 2>(call, rows, keys, groups, stream);
    keys <= 20 * warp_size ? weigh_rows<1, 1, 20>(call, rows, keys, groups, stream)
                           : weigh_rows<1, 1, AttentionCall::most_keys / warp_size>(call, rows, keys, groups, stream);
    return;
  }
  score_rows<2, 4>(call, rows, keys, groups, stream);
  if (call.size <= 2 * value_columns && keys <= 8 * warp_size) {
    weigh_rows<2, 2, 8>(call, rows, keys, groups, stream);
  } else if (keys <= 20 * warp_size) {
    weigh_rows<2, 4, 20>(call, rows, keys, groups, stream);
  } else {
    weigh_rows<1, 4, AttentionCall::most_keys / warp_size>(call, rows, keys, groups, stream);
  }
}

template <int parts, int tiles, int block_threads>
__global__ void __launch_bounds__(block_threads, 512 / block_threads) few_rows_kernel(FewRowsCall call) {
  using Block = CudaBlock<block_threads>;
  __shared__ typename Block::Shared shared;
  __shared__ WarpSums<Block, tiles> sums[parts];
  Block block{shared};
  few_rows_tile<parts, tiles>(block, call, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), sums);
}

template <int tiles>
void few_rows(const FewRowsCall& call, void* stream) {
  const dim3 grid(static_cast<unsigned>(output_tiles(call)), tiles_of(call.rows, tiles * tile_columns));
  if (call.gated) {
    few_rows_kernel<2, tiles, threads><<<grid, threads, 0, on(stream)>>>(call);
  } else if (call.in < many_terms || tiles > 2) {
    few_rows_kernel<1, tiles, threads><<<grid, threads, 0, on(stream)>>>(call);
  } else {
    constexpr int shared_tiles = tiles > 2 ? 2 : tiles;  // more would not fit in shared memory
    few_rows_kernel<1, shared_tiles, 2 * threads><<<grid, 2 * threads, 0, on(stream)>>>(call);
  }
}

void multiply_few_rows_on_gpu(const FewRowsCall& call, void* stream) {
  if (call.rows == 0) return;
  require_matrix_units();
  if (call.rows <= tile_columns) {
    few_rows<1>(call, stream);
  } else if (call.rows <= 2 * tile_columns) {
    few_rows<2>(call, stream);
  } else {
    few_rows<4>(call, stream);
  }
  check_launch("product of few rows");
}

constexpr DeviceLayers layers = {norm_on_gpu, rotate_on_gpu, gelu_on_gpu, attend_on_gpu, multiply_few_rows_on_gpu};

}  // namespace

const DeviceLayers* cuda_layers(int device) {
  require_matrix_units(device);
  return &layers;
}

}  // namespace pi0::model
