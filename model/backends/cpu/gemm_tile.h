// Matmul loops over register tiles, written once for all vector types. Included by one file per instruction set, each
// compiled with its own flags. Everything is in an unnamed namespace: the linker must not share code among these files.
//
// A vector type V has: Sum, lanes, max_rows, multiply_add(sum, x, lanes), zero(), add(sum, sum), load(const float*),
// store(float*, sum), load_lanes(const std::uint32_t*), broadcast(const std::uint32_t*).
#pragma once

#include <cstdint>

#include "model/backends/cpu/gemm_kernels.h"
#include "quant/formats/bfloat16.h"

namespace pi0::model {
namespace {

// `rows` rows by two vectors of columns, all sums in registers.
template <class V, int rows>
[[gnu::always_inline]] inline void multiply_tile(const std::uint32_t* x, std::int64_t stride, std::int64_t steps,
                                                 const std::uint32_t* lanes, float* sums, bool add,
                                                 const Ahead& ahead) {
  typename V::Sum sum[rows][2];
  for (int row = 0; row < rows; ++row) sum[row][0] = sum[row][1] = V::zero();
  // Pointers to every third row that there is: a pointer to each row would be more than there are registers, and those
  // that are kept in vector registers delay the products.
  static_assert(rows <= 12);
  const std::uint32_t* x3 = x + (rows > 3 ? 3 : 0) * stride;
  const std::uint32_t* x6 = x + (rows > 6 ? 6 : 0) * stride;
  const std::uint32_t* x9 = x + (rows > 9 ? 9 : 0) * stride;
  const std::uint8_t* next = ahead.from;
  for (std::int64_t step = 0; step < steps; ++step) {
    constexpr int for_reading = 0, into_second_level = 2;
    if (next != nullptr) {
      __builtin_prefetch(next, for_reading, into_second_level);
      next += ahead.step_bytes;
    }
    const auto first = V::load_lanes(lanes);
    const auto second = V::load_lanes(lanes + V::lanes);
    lanes += panel_width;
#pragma GCC unroll 12
    for (int row = 0; row < rows; ++row) {
      const std::uint32_t* const third = row < 3 ? x : row < 6 ? x3 : row < 9 ? x6 : x9;
      const auto value = V::broadcast(third + row % 3 * stride);
      sum[row][0] = V::multiply_add(sum[row][0], value, first);
      sum[row][1] = V::multiply_add(sum[row][1], value, second);
    }
    ++x, ++x3, ++x6, ++x9;
  }
  for (int row = 0; row < rows; ++row) {
    for (int half = 0; half < 2; ++half) {
      float* const place = sums + row * panel_width + half * V::lanes;
      V::store(place, add ? V::add(V::load(place), sum[row][half]) : sum[row][half]);
    }
  }
}

template <class V, int rows>
void multiply_rows(std::int64_t count, const std::uint32_t* x, std::int64_t stride, std::int64_t steps,
                   const std::uint32_t* lanes, float* sums, bool add, const Ahead& ahead) {
  if (count == rows) {
    for (std::int64_t column = 0; column < panel_width; column += 2 * V::lanes) {
      multiply_tile<V, rows>(x, stride, steps, lanes + column, sums + column, add, ahead);
    }
  } else if constexpr (rows > 1) {
    multiply_rows<V, rows - 1>(count, x, stride, steps, lanes, sums, add, ahead);
  }
}

// Tiles are of nearly equal heights, since a low last tile would be slow. Each run is summed by itself before it is
// added: one long sum would lose more to rounding. Each tile prefetches its share of the memory ahead, so that reading
// never pauses.
template <class V>
void multiply_run(const Run& run) {
  const std::int64_t tiles = (run.rows + V::max_rows - 1) / V::max_rows;
  for (std::int64_t panel = 0; panel < run.panels; ++panel) {
    float* const sums = run.sums + panel * run.sums_stride;
    Ahead ahead{run.ahead.from, (run.ahead.step_bytes + tiles - 1) / tiles};
    std::int64_t row = 0;
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      const std::int64_t height = (run.rows - row + tiles - tile - 1) / (tiles - tile);
      multiply_rows<V, V::max_rows>(height, run.x + row * run.stride, run.stride, run.steps, run.lanes[panel],
                                    sums + row * panel_width, run.go_on, ahead);
      row += height;
      if (ahead.from != nullptr) ahead.from += run.steps * ahead.step_bytes;
    }
  }
}

void add(float* sums, const float* more, std::int64_t count) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) sums[i] += more[i];
}

void add_terms(float* sums, std::int64_t rows, const float* terms) {
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t column = 0; column < panel_width; ++column) {
      sums[row * panel_width + column] += terms[column];
    }
  }
}

void widen_bfloat16(const std::uint16_t* from, float* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = formats::float_of_bfloat16(from[i]);
}

void narrow_to_bfloat16(const float* from, std::uint16_t* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = formats::bfloat16_of(from[i]);
}

void store(const float* sums, std::int64_t rows, std::int64_t panels, std::int64_t columns, void* out,
           std::int64_t stride, bool as_bfloat16) {
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      const float* from = sums + (panel * rows + row) * panel_width;
      const std::int64_t at = row * stride + panel * panel_width;
      const std::int64_t left = columns - panel * panel_width;
      const std::int64_t count = left < panel_width ? left : panel_width;
      if (!as_bfloat16) {
        for (std::int64_t i = 0; i < count; ++i) static_cast<float*>(out)[at + i] = from[i];
      } else if (count == panel_width) {
        narrow_to_bfloat16(from, static_cast<std::uint16_t*>(out) + at, panel_width);
      } else {
        narrow_to_bfloat16(from, static_cast<std::uint16_t*>(out) + at, count);
      }
    }
  }
}

}  // namespace
}  // namespace pi0::model
