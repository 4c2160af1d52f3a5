// A CUDA thread block with the interface that device_block.h describes.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "model/backends/cuda/device_block.h"

namespace pi0::model {
namespace {

// Tensor cores multiply bfloat16 from compute capability 8.0 on. Kernels that use them are also compiled for older
// GPUs, without those instructions, and must not run there. Throws std::runtime_error that names the GPU.
inline void require_matrix_units(int device) {
  int major = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (major >= 8) return;
  cudaDeviceProp properties{};
  cudaGetDeviceProperties(&properties, device);
  throw std::runtime_error("cuda:" + std::to_string(device) + ": found a " + properties.name +
                           " of compute capability " + std::to_string(properties.major) + "." +
                           std::to_string(properties.minor) +
                           ", expected 8.0 or newer; --kernels reference runs on older ones");
}

inline void require_matrix_units() {  // of the current device
  int device = 0;
  cudaGetDevice(&device);
  require_matrix_units(device);
}

// Call after launching a kernel. Throws std::runtime_error if that failed.
inline void check_launch(const char* what) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(error));
  }
}

// Everything is for host and device: kernels are constexpr functions, which may only call what the host can call too.
template <int thread_count>
class CudaBlock {
 public:
  static constexpr int threads = thread_count, warps = thread_count / warp_size;
  struct Shared {
    Several<double, 3> sums[warps];
    bool is_last;
  };
  template <class T>
  struct Local {
    T value;
    __host__ __device__ T& operator[](int) { return value; }
  };

  __host__ __device__ explicit CudaBlock(Shared& shared) : shared_(shared) {}

  template <class Work>
  __host__ __device__ void each(const Work& work) {
#ifdef __CUDA_ARCH__
    work(static_cast<int>(threadIdx.x));
#endif
  }

  __host__ __device__ void barrier() {
#ifdef __CUDA_ARCH__
    __syncthreads();
#endif
  }

  template <class Work>
  __host__ __device__ void issue_reads(const Work& work) {
#ifdef __CUDA_ARCH__
    // The compiler moves no read past a barrier, and what needs the barrier's result cannot come before it.
    work(static_cast<int>(threadIdx.x), static_cast<float>(__syncthreads_or(0)));
#endif
  }

  __host__ __device__ float sum(Local<float>& part) {
    Local<Several<float, 1>> one{{part.value}};
    return sum(one).at[0];
  }

  template <class T, int count>
  __host__ __device__ Several<T, count> sum(Local<Several<T, count>>& part) {
    Several<T, count> total{};
#ifdef __CUDA_ARCH__
    static_assert(sizeof(Several<T, count>) <= sizeof(shared_.sums[0]));
    auto* const sums = reinterpret_cast<Several<T, count>*>(shared_.sums);
    for (int i = 0; i < count; ++i) {
      for (int apart = warp_size / 2; apart > 0; apart /= 2) {
        part.value.at[i] += __shfl_xor_sync(~0U, part.value.at[i], apart);
      }
    }
    __syncthreads();  // all threads have read the previous sum
    if (threadIdx.x % warp_size == 0) sums[threadIdx.x / warp_size] = part.value;
    __syncthreads();
    for (int warp = 0; warp < warps; ++warp) {
      for (int i = 0; i < count; ++i) total.at[i] += sums[warp].at[i];
    }
#endif
    return total;
  }

  __host__ __device__ bool is_last(std::uint32_t* counter, unsigned count) {
#ifdef __CUDA_ARCH__
    if (threadIdx.x == 0) {
      std::uint32_t before;  // the counter wraps to zero
      asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                   : "=r"(before)
                   : "l"(counter), "r"(count - 1)
                   : "memory");
      shared_.is_last = before == count - 1;
    }
    __syncthreads();
    return shared_.is_last;
#else
    return false;
#endif
  }

  __host__ __device__ void warp_sum(Local<float>& part) {
#ifdef __CUDA_ARCH__
    for (int apart = warp_size / 2; apart > 0; apart /= 2) {
      part.value += __shfl_xor_sync(~0U, part.value, apart);
    }
#endif
  }

  __host__ __device__ void warp_max(Local<float>& part) {
#ifdef __CUDA_ARCH__
    for (int apart = warp_size / 2; apart > 0; apart /= 2) {
      const float other = __shfl_xor_sync(~0U, part.value, apart);
      part.value = part.value > other ? part.value : other;
    }
#endif
  }

  template <Halves halves = Halves::bfloat16, class Mine, class Operands>
  __host__ __device__ void multiply(Local<Mine>& mine, const Operands& operands) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const TileProduct tile = operands(mine.value);
    if constexpr (halves == Halves::bfloat16) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(tile.sums[0]), "+f"(tile.sums[1]), "+f"(tile.sums[2]), "+f"(tile.sums[3])
          : "r"(tile.a[0]), "r"(tile.a[1]), "r"(tile.a[2]), "r"(tile.a[3]), "r"(tile.b[0]), "r"(tile.b[1]));
    } else {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(tile.sums[0]), "+f"(tile.sums[1]), "+f"(tile.sums[2]), "+f"(tile.sums[3])
          : "r"(tile.a[0]), "r"(tile.a[1]), "r"(tile.a[2]), "r"(tile.a[3]), "r"(tile.b[0]), "r"(tile.b[1]));
    }
#endif
  }

 private:
  Shared& shared_;
};

}  // namespace
}  // namespace pi0::model
