// The device kernels on an NVIDIA GPU. What a value becomes is in device_loops.h; here is who works on which.
#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "quant/kernels/device_loops.h"

namespace pi0::quant {
namespace {

constexpr int threads = 256;  // of a block

template <Format format, Storage in, Storage out>
__global__ void round_kernel(RoundCall call) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * threads;
  if (round_values<format, in, out>(call, first, step)) *call.overflowed = 1;
}

// Block x sums part x of sample y.
template <Format format, Storage in, Storage out>
__global__ void finish_kernel(ResultCall call) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * threads;
  ErrorSums errors;
  if (finish_values<format, in, out>(call, blockIdx.y, first, step, errors)) *call.overflowed = 1;
  if (call.exact_sums == nullptr) return;

  __shared__ double squares[threads], power[threads];
  __shared__ long long nonfinite[threads];
  squares[threadIdx.x] = errors.squares;
  power[threadIdx.x] = errors.power;
  nonfinite[threadIdx.x] = errors.nonfinite;
  for (unsigned half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x >= half) continue;
    squares[threadIdx.x] += squares[threadIdx.x + half];
    power[threadIdx.x] += power[threadIdx.x + half];
    nonfinite[threadIdx.x] += nonfinite[threadIdx.x + half];
  }
  if (threadIdx.x != 0) return;
  ErrorSums& part = call.partial[static_cast<std::int64_t>(blockIdx.y) * gridDim.x + blockIdx.x];
  part.squares = squares[0];
  part.power = power[0];
  part.nonfinite = nonfinite[0];
}

// A thread per sample, after the parts' kernel.
__global__ void count_kernel(ResultCall call) {
  const std::int64_t sample = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (sample >= call.samples) return;
  auto* const errors = reinterpret_cast<char*>(call.errors) + sample * call.errors_stride;
  reinterpret_cast<ErrorStats*>(errors)->add(call_error(call, sample));
}

void check_launch(const char* what) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(error));
  }
}

void round_on_gpu(const RoundCall& call, void* stream) {
  if (call.count == 0) return;
  constexpr std::int64_t most_blocks = 4096;
  const auto blocks = static_cast<unsigned>(std::min((call.count + threads - 1) / threads, most_blocks));
  with_constants(call.format, call.in_storage, call.out_storage, [&](auto format, auto in, auto out) {
    round_kernel<decltype(format)::value, decltype(in)::value, decltype(out)::value>
        <<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(call);
  });
  check_launch("rounding");
}

void finish_on_gpu(const ResultCall& call, void* stream) {
  if (call.samples * call.values == 0) return;
  const auto parts = static_cast<unsigned>(partial_count(call.values));
  const auto samples = static_cast<unsigned>(call.samples);
  with_constants(call.format, call.in_storage, call.out_storage, [&](auto format, auto in, auto out) {
    finish_kernel<decltype(format)::value, decltype(in)::value, decltype(out)::value>
        <<<dim3(parts, samples), threads, 0, static_cast<cudaStream_t>(stream)>>>(call);
  });
  check_launch("rounding of results");
  if (call.exact_sums == nullptr) return;
  count_kernel<<<(samples + threads - 1) / threads, threads, 0, static_cast<cudaStream_t>(stream)>>>(call);
  check_launch("counting of errors");
}

constexpr DeviceKernels kernels = {round_on_gpu, finish_on_gpu};

}  // namespace

const DeviceKernels* cuda_kernels() { return &kernels; }

}  // namespace pi0::quant
