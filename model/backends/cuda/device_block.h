// How device kernels are written, so that CUDA's compiler and the tests' C++ compile the same code.
// A kernel is a function template over its block of threads:
//
//   Block::threads                how many there are
//   Block::Local<T>               a variable of each thread; local[thread] is the thread's own
//   block.each(work)              every thread calls work(thread)
//   block.barrier()               all threads are here, and see what the others wrote
//   block.issue_reads(work)       reads above are on their way before every thread calls
//   work(thread, zero): whatever
//                                 depends on that zero cannot be computed before; the compiler
//                                 would else put reads off until one after the other is used
//   block.sum(Local<T>)           over all threads, the same value for each; T is a number or a
//   Several<number> block.is_last(counter, count) whether this is the last of `count` blocks to
//   call it; it sees what the first thread of
//                                 each wrote to the device's memory before, and leaves the counter
//                                 at zero
//   block.warp_sum(Local<float>)  over the 32 threads of a warp, in place; warp_max(Local<float>)
//   likewise block.multiply<halves>(Local<T>, operands)  operands(T&) are a thread's part of its
//   warp's product on matrix units
//
// In CUDA, each() runs the thread's own call and the compiler keeps local variables in registers;
// in the tests it runs all calls in turn.
#pragma once

#include <cstdint>

namespace pi0::model {

// What 16 bits of an operand are.
enum class Halves { bfloat16, float16 };

// Eight 16-bit values that are read at once, in pairs as matrix units take them, the first in the
// low bits.
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

// Numbers that are summed together.
template <class T, int count>
struct Several {
  T at[count];
};

}  // namespace pi0::model
