// Scratch memory of loops: uninitialised, and aligned so that no vector crosses a cache line.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace pi0::model {

constexpr std::align_val_t cache_line{64};

struct DeleteScratch {
  void operator()(void* memory) const { ::operator delete(memory, cache_line); }
};

template <class T>
using Scratch = std::unique_ptr<T[], DeleteScratch>;

template <class T>
Scratch<T> make_scratch(std::int64_t count) {
  void* const memory = ::operator new(static_cast<std::size_t>(count) * sizeof(T), cache_line);
  return Scratch<T>(static_cast<T*>(memory));
}

}  // namespace pi0::model
