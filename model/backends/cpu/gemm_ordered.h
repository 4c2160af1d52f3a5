// Loops over sums that are accumulated in order, equal to formats::ordered_sum in all bits: a column to a lane of a
// vector, several rows at a time to hide latency. Written once for all vector types, with the compilers' own vector
// operations; in an unnamed namespace like gemm_tile.h, which says what a vector type V has. Here multiply_add(sum, x,
// lanes) rounds once, unless the product is exact in float32.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "model/backends/cpu/gemm_kernels.h"
#include "quant/formats/rounding_value.h"

namespace pi0::model {
namespace {

using formats::Accumulator;
using formats::AccumulatorKind;

// A comparison of vectors is a vector of integers, all bits set where it holds.
template <class V>
using IntsOf = decltype(typename V::Sum{} < typename V::Sum{});

template <class Ints>
Ints chosen(Ints where, Ints a, Ints b) {
  return (where & a) | (~where & b);
}

// Half a step, or a little less before an even value.
template <class Ints>
Ints half_of_bfloat16(Ints bits) {
  return ((bits >> 16) & 1) + 0x7FFF;
}

// How sums are rounded: systolic's and ipt's, which are finite, bfloat16:N's and float16:N's. As formats::round_one.
struct FiniteBfloat16 {
  template <class V>
  static typename V::Sum rounded(typename V::Sum sum) {
    const auto bits = std::bit_cast<IntsOf<V>>(sum);
    return std::bit_cast<typename V::Sum>((bits + half_of_bfloat16(bits)) & -0x10000);
  }
};

struct AnyBfloat16 {
  template <class V>
  static typename V::Sum rounded(typename V::Sum sum) {
    const auto bits = std::bit_cast<IntsOf<V>>(sum);
    return std::bit_cast<typename V::Sum>((bits + (half_of_bfloat16(bits) & (sum == sum))) & -0x10000);
  }
};

struct AnyFloat16 {
  template <class V>
  static typename V::Sum rounded(typename V::Sum sum) {
    if constexpr (requires { V::rounded_to_float16(sum); }) {
      return V::rounded_to_float16(sum);
    } else {
      using Ints = IntsOf<V>;
      using Sum = typename V::Sum;
      constexpr formats::Grid grid = formats::grid_of(Format::float16);
      constexpr int infinity = formats::infinity_bits;
      constexpr int top = std::bit_cast<int>(2 * formats::first_beyond(Format::float16) - grid.largest);
      constexpr int smallest_normal = (127 + grid.min_exponent) << 23, dropped_bits = 23 - grid.mantissa_bits;
      const Ints bits = std::bit_cast<Ints>(sum), magnitude = bits & 0x7FFFFFFF;
      const Ints within = chosen<Ints>(magnitude > top, Ints{} + top, magnitude);
      const Ints own = within & infinity;
      const Ints exponent = chosen<Ints>(own > smallest_normal, own, Ints{} + smallest_normal);
      const Sum power = std::bit_cast<Sum>(exponent + (dropped_bits << 23));
      Ints rounded = std::bit_cast<Ints>((std::bit_cast<Sum>(within) + power) - power);
      rounded = chosen<Ints>(rounded == top, Ints{} + infinity, rounded);
      rounded = chosen<Ints>(magnitude > infinity, magnitude, rounded);
      return std::bit_cast<Sum>(rounded | (bits ^ magnitude));
    }
  }
};

// A tile's part of a run.
struct OrderedPart {
  const std::uint32_t* x;
  std::int64_t stride;
  std::int64_t first_step;  // in the whole sum
  std::int64_t steps;
  const std::uint32_t* lanes;
  float* sums;
  bool is_last;
};

template <class V, int rows>
struct TileSums {
  typename V::Sum of[rows][2];

  explicit TileSums(const float* sums) {
    for (int row = 0; row < rows; ++row) {
      for (int half = 0; half < 2; ++half) of[row][half] = V::load(sums + row * panel_width + half * V::lanes);
    }
  }

  void store(float* sums) const {
    for (int row = 0; row < rows; ++row) {
      for (int half = 0; half < 2; ++half) V::store(sums + row * panel_width + half * V::lanes, of[row][half]);
    }
  }
};

// Calls multiply(row, half, x, lanes) for a tile's rows and both vectors of columns.
template <class V, int rows, class Multiply>
[[gnu::always_inline]] inline void for_products(const OrderedPart& part, std::int64_t step, const Multiply& multiply) {
  const auto first = V::load_lanes(part.lanes + step * panel_width);
  const auto second = V::load_lanes(part.lanes + step * panel_width + V::lanes);
#pragma GCC unroll 12
  for (int row = 0; row < rows; ++row) {
    const auto value = V::broadcast(part.x + row * part.stride + step);
    multiply(row, 0, value, first);
    multiply(row, 1, value, second);
  }
}

template <class V, class Rounding, int rows>
[[gnu::always_inline]] inline void add_rounded(const OrderedPart& part, std::int64_t every) {
  TileSums<V, rows> sum(part.sums);
  std::int64_t until_rounding = every - part.first_step % every;
  for (std::int64_t step = 0; step < part.steps;) {
    const std::int64_t end = std::min(part.steps, step + until_rounding);
    until_rounding -= end - step;
    for (; step < end; ++step) {
      for_products<V, rows>(part, step, [&](int row, int half, auto x, auto lanes) {
        sum.of[row][half] = V::multiply_add(sum.of[row][half], x, lanes);
      });
    }
    if (until_rounding > 0 && !(part.is_last && step == part.steps)) continue;
    until_rounding = every;
    for (auto& row : sum.of) {
      for (auto& half : row) half = Rounding::template rounded<V>(half);
    }
  }
  sum.store(part.sums);
}

// One tree. Terms that are not 0 are at least 2^-18 (accumulator.cpp), far from float32's subnormals.
template <class V, int rows>
[[gnu::always_inline]] inline void add_tree(const OrderedPart& part) {
  using Sum = typename V::Sum;
  using Ints = IntsOf<V>;
  constexpr int exponent_bits = 0x7F800000, smallest = (127 - 18) << 23;
  constexpr int tree_bits = 22;  // below the largest term's first: 29 of fraction less 7 of headroom
  TileSums<V, rows> sum(part.sums);
  Ints largest[rows][2];  // magnitude, of which only the exponent counts
  const auto see = [&](int row, int half, Sum term) {
    const Ints magnitude = std::bit_cast<Ints>(term) & 0x7FFFFFFF;
    largest[row][half] = largest[row][half] > magnitude ? largest[row][half] : magnitude;
  };
  for (int row = 0; row < rows; ++row) {
    for (int half = 0; half < 2; ++half) {
      largest[row][half] = Ints{} + smallest;
      see(row, half, sum.of[row][half]);
    }
  }
  for (std::int64_t step = 0; step < part.steps; ++step) {
    for_products<V, rows>(part, step, [&](int row, int half, auto x, auto lanes) { see(row, half, x * lanes); });
  }
  Sum scale[rows][2];
  Ints total[rows][2];
  for (int row = 0; row < rows; ++row) {
    for (int half = 0; half < 2; ++half) {
      const Ints exponent = (largest[row][half] & exponent_bits) - (127 << 23);
      scale[row][half] = std::bit_cast<Sum>(((127 + tree_bits) << 23) - exponent);
      total[row][half] = __builtin_convertvector(sum.of[row][half] * scale[row][half], Ints);  // towards zero
    }
  }
  for (std::int64_t step = 0; step < part.steps; ++step) {
    for_products<V, rows>(part, step, [&](int row, int half, auto x, auto lanes) {
      total[row][half] += __builtin_convertvector(x * lanes * scale[row][half], Ints);
    });
  }
  for (int row = 0; row < rows; ++row) {
    for (int half = 0; half < 2; ++half) {
      const Sum unit = std::bit_cast<Sum>((largest[row][half] & exponent_bits) - (tree_bits << 23));
      sum.of[row][half] = FiniteBfloat16::rounded<V>(__builtin_convertvector(total[row][half], Sum) * unit);
    }
  }
  sum.store(part.sums);
}

template <class V, int rows>
[[gnu::always_inline]] inline void add_trees(const OrderedPart& part) {
  constexpr std::int64_t tree_size = 32;
  for (std::int64_t step = 0; step < part.steps; step += tree_size) {
    OrderedPart tree = part;
    tree.x += step;
    tree.lanes += step * panel_width;
    tree.steps = std::min(tree_size, part.steps - step);
    add_tree<V, rows>(tree);
  }
}

// Calls call(`count` as a constant), which is at most `most`.
template <int most, class Call>
void with_rows(std::int64_t count, const Call& call) {
  if (count == most) {
    call(std::integral_constant<int, most>{});
  } else if constexpr (most > 1) {
    with_rows<most - 1>(count, call);
  }
}

// Calls tile(part, rows as a constant) for every tile of a run.
template <class V, int most_rows, class Tile>
void for_ordered_tiles(const Run& run, std::int64_t first_step, bool is_last, const Tile& tile) {
  for (std::int64_t panel = 0; panel < run.panels; ++panel) {
    for (std::int64_t row = 0; row < run.rows; row += most_rows) {
      with_rows<most_rows>(std::min<std::int64_t>(most_rows, run.rows - row), [&](auto rows) {
        for (std::int64_t column = 0; column < panel_width; column += 2 * V::lanes) {
          float* const sums = run.sums + panel * run.sums_stride + row * panel_width + column;
          tile(OrderedPart{run.x + row * run.stride, run.stride, first_step, run.steps, run.lanes[panel] + column, sums,
                           is_last},
               rows);
        }
      });
    }
  }
}

// Products of encoded operands are exact, so that Fused is needed for others only.
template <class V, class Fused = V>
void multiply_in_order(const Accumulator& accumulator, const Run& run, std::int64_t first_step, bool is_last) {
  constexpr int most_rows = V::max_rows / 2, most_rows_of_trees = V::max_rows / 3;
  const auto for_tiles = [&](auto most, const auto& tile) {
    for_ordered_tiles<V, most()>(run, first_step, is_last, tile);
  };
  constexpr std::integral_constant<int, most_rows> many;
  constexpr std::integral_constant<int, most_rows_of_trees> few;
  switch (accumulator.kind) {
    case AccumulatorKind::bfloat16:
      return for_tiles(many, [&](const OrderedPart& part, auto rows) {
        add_rounded<Fused, AnyBfloat16, rows()>(part, accumulator.every);
      });
    case AccumulatorKind::float16:
      return for_tiles(many, [&](const OrderedPart& part, auto rows) {
        add_rounded<Fused, AnyFloat16, rows()>(part, accumulator.every);
      });
    case AccumulatorKind::systolic:
      return for_tiles(many,
                       [](const OrderedPart& part, auto rows) { add_rounded<V, FiniteBfloat16, rows()>(part, 1); });
    case AccumulatorKind::ipt:
      return for_tiles(few, [](const OrderedPart& part, auto rows) { add_trees<V, rows()>(part); });
    case AccumulatorKind::float32:
      return;  // multiply() of the table
  }
}

}  // namespace
}  // namespace pi0::model
