// How device kernels are written, so that CUDA's compiler and the tests' C++ compile the same code.
// A kernel is a function template over its block of threads, which has:
//
//   Block::threads: the number of threads.
//
//   Block::Local<T>: a variable of each thread; local[thread] is the thread's own.
//
//   block.each(work): every thread calls work(thread).
//
//   block.barrier(): waits until all threads are here; each then sees what the others wrote.
//
//   block.issue_reads(work): issues the reads above it, then every thread calls work(thread, zero). What depends on
//   that zero cannot be computed earlier. Without it, the compiler would delay each read until its value is used.
//
//   block.sum(Local<T>): the sum over all threads, which each thread gets. T is a number or Several<number>.
//
//   block.is_last(counter, count): whether this is the last of `count` blocks to call it. The last block sees what the
//   first thread of each block wrote to device memory before its call. Leaves the counter at zero.
//
//   block.warp_sum(Local<float>), block.warp_max(Local<float>): over the 32 threads of a warp, in place.
//
//   block.multiply<halves>(Local<T>, operands): a product of each warp on tensor cores; operands(T&) returns a thread's
//   part of it.
//
// In CUDA, each() runs the thread's own call and the compiler keeps local variables in registers. In the tests, it runs
// all calls one after the other.
#pragma once

#include <cstdint>

namespace pi0::model {

// The format of 16-bit operands.
enum class Halves { bfloat16, float16 };

// Eight 16-bit values that are read at once, in pairs as tensor cores take them, the first in the low bits.
struct alignas(16) Eight {
  std::uint32_t pairs[4];
};

constexpr Eight load_eight(const std::uint16_t* values) {
  return *static_cast<const Eight*>(static_cast<const void*>(values));
}

constexpr std::uint16_t half_of(const Eight& eight, int i) {
  return static_cast<std::uint16_t>(eight.pairs[i / 2] >> i % 2 * 16 & 0xFFFFU);
}

// A thread's part of a 16 x 8 product over 16 terms, added to `sums` in float32: PTX's
// mma.m16n8k16. With the thread's row = lane / 4 and step = lane % 4, `a` holds terms 2·step and
// 2·step + 1 of rows row and row + 8, then terms 2·step + 8 and 2·step + 9 of both; `b` the same
// terms of column row; `sums` columns 2·step and 2·step + 1 of rows row and row + 8.
struct TileProduct {
  float* sums;  // [4]
  std::uint32_t a[4];
  std::uint32_t b[2];
};

constexpr int warp_size = 32;

// Several numbers that are summed at once.
template <class T, int count>
struct Several {
  T at[count];
};

}  // namespace pi0::model
