// softmax(QKᵀ)V on matrix units, as device kernels (see device_block.h): scores of all keys lie in the device's
// memory between the two, so that the softmax knows its largest score and its sum before weights are rounded, as
// the reference's does.
#pragma once

#include "model/kernels/device_block.h"
#include "model/kernels/device_layer_kernels.h"
#include "model/kernels/device_product.h"

namespace pi0::model {
namespace {

// What a group's scores are of: its heads' query tokens, and all keys.
struct GroupPlace {
  int sample, group, heads, rows, keys;

  constexpr GroupPlace(const AttentionCall& call, int index)
      : sample(index / call.groups), group(index % call.groups), heads(call.heads / call.groups),
        rows(heads * call.query.tokens), keys(call.keys[0].tokens + call.keys[1].tokens) {}

  constexpr const std::uint16_t* query(const AttentionCall& call, int row) const {
    const int head = group * heads + row / call.query.tokens;
    return call.query.values + sample * call.query.sample_stride + head * call.query.head_stride +
           row % call.query.tokens * call.query.token_stride;
  }
  // A token's vector in a prefix and what follows it.
  constexpr const std::uint16_t* joined(const HeadRows (&parts)[2], int token) const {
    const HeadRows& part = parts[token < parts[0].tokens ? 0 : 1];
    return part.values + sample * part.sample_stride + group * part.head_stride +
           (token - (token < parts[0].tokens ? 0 : parts[0].tokens)) * part.token_stride;
  }
  constexpr float* scores(const AttentionCall& call, int row) const {
    return call.scores + (std::int64_t{sample * call.groups + group} * rows + row) * keys;
  }
};

// Scores of down · 16 rows and, by each warp, of across · 8 keys.
template <int down, int across, class Block>
constexpr void score_tile(Block& block, const AttentionCall& call, int index, int first_row, int first_key) {
  constexpr int unroll = down * across <= 2 ? 4 : 1;  // chunks that are read before the first is multiplied
  const GroupPlace place(call, index);
  struct Mine {
    float sums[down][across][4];
    const std::uint16_t *query[down][2], *key[across];
    Eight upper[unroll][down], lower[unroll][down], keys[unroll][across];
  };
  typename Block::template Local<Mine> mine;
  const auto key_of = [&](int thread) { return first_key + thread / warp_size * across * tile_columns; };
  block.each([&](int thread) {
    Mine& own = mine[thread];
    const int lane = thread % warp_size, row = lane / 4;
    own = {};
#pragma unroll
    for (int i = 0; i < down * 2; ++i) {
      own.query[i / 2][i % 2] =
          place.query(call, row_within(first_row + i / 2 * tile_rows + i % 2 * 8 + row, place.rows)) + lane % 4 * 8;
    }
#pragma unroll
    for (int i = 0; i < across; ++i) {
      own.key[i] = place.joined(call.keys, row_within(key_of(thread) + i * tile_columns + row, place.keys)) + lane % 4 * 8;
    }
  });
  over_terms<unroll * chunk_terms>(call.size, [&](int begin, auto terms) {
    block.each([&](int thread) {
      Mine& own = mine[thread];
      const int left = call.size - thread % 4 * 8;
#pragma unroll
      for (int chunk = 0; chunk < unroll; ++chunk) {
        const int first = begin + chunk * chunk_terms;
#pragma unroll
        for (int i = 0; i < down; ++i) {
          own.upper[chunk][i] = eight_terms<terms()>(own.query[i][0], first, left);
          own.lower[chunk][i] = eight_terms<terms()>(own.query[i][1], first, left);
        }
#pragma unroll
        for (int i = 0; i < across; ++i) own.keys[chunk][i] = eight_terms<terms()>(own.key[i], first, left);
      }
    });
    block.issue_reads([&](int thread, float zero) {
#pragma unroll
      for (int i = 0; i < down * across * 4; ++i) mine[thread].sums[i / 4 / across][i / 4 % across][i % 4] += zero;
    });
#pragma unroll
    for (int chunk = 0; chunk < unroll; ++chunk) {
#pragma unroll
      for (int i = 0; i < down * across * 2; ++i) {
        block.multiply(mine, [=](Mine& own) {
          const int y = i / 2 / across, x = i / 2 % across;
          return half_product(own.sums[y][x], own.upper[chunk][y], own.lower[chunk][y], own.keys[chunk][x], i % 2);
        });
      }
    }
  });
  block.each([&](int thread) {
    const int lane = thread % warp_size;
#pragma unroll
    for (int i = 0; i < down * across * 4; ++i) {
      const int y = i / 4 / across, x = i / 4 % across;
      const int row = first_row + y * tile_rows + tile_row(lane, i % 4);
      const int key = key_of(thread) + x * tile_columns + tile_column(lane, i % 4);
      if (row >= place.rows || key >= place.keys) continue;
      const float sum = mine[thread].sums[y][x][i % 4];
      place.scores(call, row)[key] = call.rounding == ScoreRounding::each_step
                                         ? AsBfloat16::rounded(AsBfloat16::rounded(sum) * call.scale)
                                         : sum * call.scale;
    }
  });
}

constexpr int value_columns = 64;  // of a head that a block works on: eight for each of a tile's columns

// Weights of a row lie apart by an odd multiple of 16 bytes, so that rows do not meet in the same banks.
constexpr int weight_stride(int keys) { return tiles_over(keys, 16) * 16 + 8; }

// Bytes that the threads of a block share: weights, and after them their products.
template <class Block>
constexpr int weigh_bytes(int keys) {
  const int weights = tile_rows * weight_stride(keys) * 2;
  constexpr int products = Block::threads / warp_size * tile_rows * value_columns * 4;
  return weights > products ? weights : products;
}

// The softmax of a block's 16 rows; `lane_keys` at least of each lane. Leaves rounded weights, zero past the last key,
// and what a row's products are to be divided by.
template <int lane_keys, class Block>
constexpr void soften_rows(Block& block, const AttentionCall& call, const GroupPlace& place, int first_row,
                           std::uint16_t* weights, float (&factors)[tile_rows]) {
  constexpr int warp_rows = tile_rows / (Block::threads / warp_size);
  const int padded_keys = tiles_over(place.keys, 16) * 16;
  struct Mine {
    float scores[lane_keys];
  };
  typename Block::template Local<Mine> mine;
  typename Block::template Local<float> most, sum;
#pragma unroll
  for (int i = 0; i < warp_rows; ++i) {
    block.each([&](int thread) {
      Mine& own = mine[thread];
      const int row = row_within(first_row + thread / warp_size * warp_rows + i, place.rows);
      const float* const scores = place.scores(call, row);
      const float* const mask =
          call.mask + (std::int64_t{place.sample} * call.query.tokens + row % call.query.tokens) * place.keys;
#pragma unroll
      for (int j = 0; j < lane_keys; ++j) {
        const int key = thread % warp_size + j * warp_size;
        own.scores[j] = key < place.keys ? scores[key] : -3.4e38F;
      }
      if (call.mask != nullptr) {
#pragma unroll
        for (int j = 0; j < lane_keys; ++j) {
          const int key = thread % warp_size + j * warp_size;
          if (key < place.keys) own.scores[j] += mask[key];
        }
      }
      float largest = -3.4e38F;
#pragma unroll
      for (int j = 0; j < lane_keys; ++j) largest = largest > own.scores[j] ? largest : own.scores[j];
      most[thread] = largest;
    });
    block.warp_max(most);
    block.each([&](int thread) {
      Mine& own = mine[thread];
      float total = 0;
#pragma unroll
      for (int j = 0; j < lane_keys; ++j) {
        const bool is_key = thread % warp_size + j * warp_size < place.keys;
        own.scores[j] = is_key ? exp_negative(own.scores[j] - most[thread]) : 0.0F;
        total += own.scores[j];
      }
      sum[thread] = total;
    });
    block.warp_sum(sum);
    block.each([&](int thread) {
      const int row = thread / warp_size * warp_rows + i;
      const bool divide_now = call.rounding == ScoreRounding::each_step;
      const float inverse = 1.0F / sum[thread];
#pragma unroll
      for (int j = 0; j < lane_keys; ++j) {
        const int key = thread % warp_size + j * warp_size;
        const float weight = mine[thread].scores[j];
        if (key < padded_keys) {
          weights[row * weight_stride(place.keys) + key] = bfloat16_of(divide_now ? weight * inverse : weight);
        }
      }
      factors[row] = divide_now ? 1.0F : inverse;
    });
  }
  block.barrier();
}

// Softmax of 16 rows' scores, and the values weighed by it in 64 columns of their heads. Warps share the keys.
template <int lane_keys, class Block>
constexpr void weigh_tile(Block& block, const AttentionCall& call, int index, int first_row, int first_column,
                          void* shared, float (&factors)[tile_rows]) {
  constexpr int warps = Block::threads / warp_size;
  constexpr int unroll = 2;  // of 16 keys, which are read before the first are multiplied
  const GroupPlace place(call, index);
  const int padded_keys = tiles_over(place.keys, 16) * 16, stride = weight_stride(place.keys);
  auto* const weights = static_cast<std::uint16_t*>(shared);
  soften_rows<lane_keys>(block, call, place, first_row, weights, factors);

  struct Mine {
    float sums[tile_columns][4];
    std::uint32_t a[unroll][4];
    Eight values[unroll][4];  // of the thread's four keys: eight columns each
  };
  typename Block::template Local<Mine> mine;
  block.each([&](int thread) { mine[thread] = {}; });
  for (int begin = 0; begin < padded_keys; begin += unroll * warps * 16) {
    block.each([&](int thread) {
      Mine& own = mine[thread];
      const int lane = thread % warp_size;
      const int own_column = first_column + lane / 4 * 8;
      const int column = own_column < call.size ? own_column : 0;
#pragma unroll
      for (int step = 0; step < unroll; ++step) {
        const int first = begin + (step * warps + thread / warp_size) * 16 + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int key = row_within(first + i / 2 * 8 + i % 2, place.keys);  // past the last the weights are zero
          own.values[step][i] = load_eight(place.joined(call.values, key) + column);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int pair = first + i / 2 * 8;
          const std::uint16_t* const weight = weights + (lane / 4 + i % 2 * 8) * stride + pair;
          own.a[step][i] = pair < padded_keys ? *static_cast<const std::uint32_t*>(static_cast<const void*>(weight)) : 0;
        }
      }
    });
    block.issue_reads([&](int thread, float zero) {
#pragma unroll
      for (int i = 0; i < tile_columns * 4; ++i) mine[thread].sums[i / 4][i % 4] += zero;
    });
#pragma unroll
    for (int step = 0; step < unroll; ++step) {
#pragma unroll
      for (int column = 0; column < tile_columns; ++column) {  // of a thread's eight, a tile each
        block.multiply(mine, [=](Mine& own) {
          const Eight(&values)[4] = own.values[step];
          const auto both = [&](int key) {
            return std::uint32_t{half_of(values[key], column)} | std::uint32_t{half_of(values[key + 1], column)} << 16;
          };
          const std::uint32_t(&a)[4] = own.a[step];
          return TileProduct{own.sums[column], {a[0], a[1], a[2], a[3]}, {both(0), both(2)}};
        });
      }
    }
  }
  block.barrier();  // the weights are read
  auto* const products = static_cast<float*>(shared);  // [warp][row][column]
  block.each([&](int thread) {
    const int lane = thread % warp_size;
#pragma unroll
    for (int i = 0; i < tile_columns * 4; ++i) {
      const int row = tile_row(lane, i % 4), column = tile_column(lane, i % 4) * 8 + i / 4;
      products[(thread / warp_size * tile_rows + row) * value_columns + column] = mine[thread].sums[i / 4][i % 4];
    }
  });
  block.barrier();
  block.each([&](int thread) {
#pragma unroll
    for (int i = thread; i < tile_rows * value_columns; i += Block::threads) {
      const int row = first_row + i / value_columns, column = first_column + i % value_columns;
      if (row >= place.rows || column >= call.size) continue;
      float sum = 0;
#pragma unroll
      for (int warp = 0; warp < warps; ++warp) sum += products[warp * tile_rows * value_columns + i];
      const int head = place.group * place.heads + row / call.query.tokens;
      const int token = place.sample * call.query.tokens + row % call.query.tokens;
      call.out[(std::int64_t{token} * call.heads + head) * call.size + column] =
          bfloat16_of(sum * factors[i / value_columns]);
    }
  });
}

}  // namespace
}  // namespace pi0::model
