// Products of few rows with weights on tensor cores, as device kernels (see device_block.h). Weights are the 16 rows of
// a tile and x its 8 columns. Reading the weights is the whole cost of such a product, so each is read once, 16 bytes
// at a time, and the terms of a sum are assigned to tile products in memory order.
#pragma once

#include <type_traits>

#include "model/backends/cuda/device_block.h"
#include "model/backends/cuda/device_layer_kernels.h"
#include "model/backends/cuda/device_layers.h"

namespace pi0::model {
namespace {

constexpr int tile_rows = 16, tile_columns = 8;
constexpr int chunk_terms = 32;  // that a warp takes at once: eight for each of its four steps, in two tile products

constexpr int many_terms = 2048;  // from this many on, twice as many warps share them

constexpr int tiles_over(int count, int tile) { return (count + tile - 1) / tile; }

// Rows past the last read the last one. Their sums are not used.
constexpr int row_within(int row, int rows) { return row < rows ? row : rows - 1; }

// Whether all terms that are read at once exist. In the rest, terms past the last are zeros.
enum class Terms { whole, rest };

template <Terms terms>
constexpr Eight eight_terms(const std::uint16_t* vector, int first, int count) {
  return terms == Terms::whole || first < count ? load_eight(vector + first) : Eight{};
}

// Calls step(first, Terms as a constant) for each `at_once` terms.
template <int at_once, class Step>
constexpr void over_terms(int count, const Step& step) {
  int first = 0;
  for (; first + at_once <= count; first += at_once) step(first, std::integral_constant<Terms, Terms::whole>{});
  if (first < count) step(first, std::integral_constant<Terms, Terms::rest>{});
}

// Half 0 or 1 of a chunk's product. Terms need not be in PTX's order, as long as it is the same on both sides.
constexpr TileProduct half_product(float* sums, const Eight& upper, const Eight& lower, const Eight& column, int half) {
  return {sums,
          {upper.pairs[2 * half], lower.pairs[2 * half], upper.pairs[2 * half + 1], lower.pairs[2 * half + 1]},
          {column.pairs[2 * half], column.pairs[2 * half + 1]}};
}

// The row and column in a tile of a thread's sum `i` of 4.
constexpr int tile_row(int lane, int i) { return lane / 4 + (i < 2 ? 0 : 8); }
constexpr int tile_column(int lane, int i) { return lane % 4 * 2 + i % 2; }

// The sums of a tile by warp: each warp sums its share of the terms.
template <class Block, int tiles>
struct WarpSums {
  static constexpr int warps = Block::threads / warp_size, columns = tiles * tile_columns;
  float values[warps][columns][tile_rows];

  constexpr float total(int column, int row) const {
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < warps; ++warp) sum += values[warp][column][row];
    return sum;
  }
};

// The operands of a product, used as they are stored. Other types of operands may store the first weight and x in
// another format, and convert both after all reads were issued.
struct PlainOperands {
  const std::uint16_t* weights[2];  // [out, in]
  int out;
  const std::uint16_t* x;  // [rows, in]
  int rows, in;

  static constexpr Halves halves(int) { return Halves::bfloat16; }
  static constexpr bool converts_weight() { return false; }
  static constexpr bool converts_x() { return false; }

  template <Terms terms>
  constexpr Eight weight(int part, int row, int term) const {
    return eight_terms<terms>(weights[part] + std::int64_t{row_within(row, out)} * in, term, in);
  }
  template <Terms terms>
  constexpr Eight x_row(int row, int term) const {
    return eight_terms<terms>(x + std::int64_t{row_within(row, rows)} * in, term, in);
  }
  constexpr Eight converted_weight(const Eight& eight) const { return eight; }
  constexpr Eight converted_x(const Eight& eight) const { return eight; }
};

// Multiplies 16 outputs, from `first_out` on, of each of `parts` weights with tiles · 8 rows of x, from `first_row` on.
// Warps share the terms.
template <int parts, int tiles, class Block, class Operands>
constexpr void multiply_tile(Block& block, const Operands& operands, int first_out, int first_row,
                             WarpSums<Block, tiles> (&result)[parts]) {
  constexpr int unroll = tiles <= 2 ? 4 : 2;  // chunks that are read before the first is multiplied
  constexpr bool converts = Operands::converts_x();
  struct Mine {
    float sums[parts][tiles][4];
    Eight upper[parts][unroll], lower[parts][unroll];
    Eight x[unroll][tiles];
    // tiles may be 1. NOLINTNEXTLINE(bugprone-branch-clone)
    Eight converted[converts ? unroll : 1][converts ? tiles : 1];
  };
  typename Block::template Local<Mine> mine;
  block.each([&](int thread) { mine[thread] = {}; });
  constexpr int stride = chunk_terms * WarpSums<Block, tiles>::warps;
  over_terms<unroll * stride>(operands.in, [&](int begin, auto terms) {
    block.each([&](int thread) {
      Mine& own = mine[thread];
      const int lane = thread % warp_size, row = lane / 4;
      const int first = begin + thread / warp_size * chunk_terms + lane % 4 * 8;
#pragma unroll
      for (int chunk = 0; chunk < unroll; ++chunk) {
        const int term = first + chunk * stride;
#pragma unroll
        for (int part = 0; part < parts; ++part) {
          own.upper[part][chunk] = operands.template weight<terms()>(part, first_out + row, term);
          own.lower[part][chunk] = operands.template weight<terms()>(part, first_out + row + 8, term);
        }
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile) {
          own.x[chunk][tile] = operands.template x_row<terms()>(first_row + tile * tile_columns + row, term);
        }
      }
    });
    block.issue_reads([&](int thread, float zero) {
#pragma unroll
      for (int i = 0; i < parts * tiles * 4; ++i) mine[thread].sums[i / 4 / tiles][i / 4 % tiles][i % 4] += zero;
    });
#pragma unroll
    for (int chunk = 0; chunk < unroll; ++chunk) {
      block.each([&](int thread) {
        Mine& own = mine[thread];
        if constexpr (Operands::converts_weight()) {
          own.upper[0][chunk] = operands.converted_weight(own.upper[0][chunk]);
          own.lower[0][chunk] = operands.converted_weight(own.lower[0][chunk]);
        }
        if constexpr (converts) {
#pragma unroll
          for (int tile = 0; tile < tiles; ++tile)
            own.converted[chunk][tile] = operands.converted_x(own.x[chunk][tile]);
        }
      });
#pragma unroll
      for (int i = 0; i < tiles * 2; ++i) {
        const int tile = i / 2;
        block.template multiply<Operands::halves(0)>(mine, [=](Mine& own) {
          const Eight& x = converts ? own.converted[converts ? chunk : 0][converts ? tile : 0] : own.x[chunk][tile];
          return half_product(own.sums[0][tile], own.upper[0][chunk], own.lower[0][chunk], x, i % 2);
        });
        if constexpr (parts == 2) {
          block.template multiply<Operands::halves(1)>(mine, [=](Mine& own) {
            return half_product(own.sums[1][tile], own.upper[1][chunk], own.lower[1][chunk], own.x[chunk][tile], i % 2);
          });
        }
      }
    }
  });
  block.each([&](int thread) {
    const int lane = thread % warp_size;
#pragma unroll
    for (int i = 0; i < parts * tiles * 4; ++i) {
      const int part = i / 4 / tiles, tile = i / 4 % tiles;
      result[part].values[thread / warp_size][tile * tile_columns + tile_column(lane, i % 4)][tile_row(lane, i % 4)] =
          mine[thread].sums[part][tile][i % 4];
    }
  });
  block.barrier();
}

// The number of tiles of 16 outputs of all parts. If gated, the second part shares the tiles of the first.
constexpr int output_tiles(const FewRowsCall& call) {
  int tiles = 0;
  for (int i = 0; i < (call.gated ? 1 : call.part_count); ++i) tiles += tiles_over(call.parts[i].out, tile_rows);
  return tiles;
}

// Computes a tile of outputs, counted over all parts, for tiles · 8 rows of x.
template <int parts, int tiles, class Block>
constexpr void few_rows_tile(Block& block, const FewRowsCall& call, int output_tile, int row_tile,
                             WarpSums<Block, tiles> (&sums)[parts]) {
  FewRowsCall::Part part = call.parts[0];
  if constexpr (parts == 1) {
#pragma unroll
    for (int i = 1; i < FewRowsCall::most_parts; ++i) {
      const int tiles_before = tiles_over(part.out, tile_rows);
      if (i >= call.part_count || output_tile < tiles_before) break;
      output_tile -= tiles_before;
      part = call.parts[i];
    }
  }
  constexpr int columns = WarpSums<Block, tiles>::columns;
  const int first_out = output_tile * tile_rows, first_row = row_tile * columns;
  const PlainOperands operands{{part.weight, call.parts[1].weight}, part.out, call.x, call.rows, call.in};
  multiply_tile<parts, tiles>(block, operands, first_out, first_row, sums);
  block.each([&](int thread) {
    for (int i = thread; i < columns * tile_rows; i += Block::threads) {
      const int column = i / tile_rows, row = i % tile_rows;
      const int x_row = first_row + column, out = first_out + row;
      if (x_row >= call.rows || out >= part.out) continue;
      float value = sums[0].total(column, row);
      if (part.bias != nullptr) value += formats::float_of_bfloat16(part.bias[out]);
      if constexpr (parts == 2) {
        value = gated<AsBfloat16>(AsBfloat16::rounded(value), AsBfloat16::rounded(sums[1].total(column, row)));
      }
      part.result[std::int64_t{x_row} * part.out + out] = formats::bfloat16_of(value);
    }
  });
}

}  // namespace
}  // namespace pi0::model
