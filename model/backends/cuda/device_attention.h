// Attention on tensor cores in two device kernels (see device_block.h). score_tile() writes all scores to device
// memory; weigh_tile() applies the softmax and multiplies by V. So the softmax knows its maximum and its sum before
// weights are rounded, as in the reference (modeling_gemma.py eager_attention_forward).
#pragma once

#include "model/backends/cuda/device_block.h"
#include "model/backends/cuda/device_layer_kernels.h"
#include "model/backends/cuda/device_product.h"

namespace pi0::model {
namespace {

// The scores of one sample and one KV head (a group): a row for each query token of each of its heads, and all keys.
struct GroupPlace {
  int sample, group, heads, rows, keys;

  constexpr GroupPlace(const AttentionCall& call, int index)
      : sample(index / call.groups),
        group(index % call.groups),
        heads(call.heads / call.groups),
        rows(heads * call.query.tokens),
        keys(call.keys[0].tokens + call.keys[1].tokens) {}

  constexpr const std::uint16_t* query(const AttentionCall& call, int row) const {
    const int head = group * heads + row / call.query.tokens;
    return call.query.values + sample * call.query.sample_stride + head * call.query.head_stride +
           row % call.query.tokens * call.query.token_stride;
  }
  // The vector of a position, counted over the prefix and the tokens after it.
  constexpr const std::uint16_t* joined(const HeadRows (&parts)[2], int token) const {
    const HeadRows& part = parts[token < parts[0].tokens ? 0 : 1];
    return part.values + sample * part.sample_stride + group * part.head_stride +
           (token - (token < parts[0].tokens ? 0 : parts[0].tokens)) * part.token_stride;
  }
  constexpr float* scores(const AttentionCall& call, int row) const {
    return call.scores + (std::int64_t{sample * call.groups + group} * rows + row) * call.score_stride;
  }
};

// Computes scores of down · 16 rows; each warp takes across · 8 keys.
template <int down, int across, class Block>
constexpr void score_tile(Block& block, const AttentionCall& call, int index, int first_row, int first_key) {
  constexpr int unroll = down * across <= 2 ? 4 : 2;  // chunks that are read before the first is multiplied
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
      own.key[i] =
          place.joined(call.keys, row_within(key_of(thread) + i * tile_columns + row, place.keys)) + lane % 4 * 8;
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
    struct alignas(8) Two {
      float at[2];
    };
    const auto score = [&](float sum) {
      return call.rounding == ScoreRounding::each_step ? AsBfloat16::rounded(AsBfloat16::rounded(sum) * call.scale)
                                                       : sum * call.scale;
    };
#pragma unroll
    for (int i = 0; i < down * across * 4; i += 2) {  // two adjacent scores at a time
      const int y = i / 4 / across, x = i / 4 % across;
      const int row = first_row + y * tile_rows + tile_row(lane, i % 4);
      const int key = key_of(thread) + x * tile_columns + tile_column(lane, i % 4);
      if (row >= place.rows || key >= place.keys) continue;
      const float(&sums)[4] = mine[thread].sums[y][x];
      *static_cast<Two*>(static_cast<void*>(place.scores(call, row) + key)) = {
          {score(sums[i % 4]), score(sums[i % 4 + 1])}};
    }
  });
}

constexpr int value_columns = 64;  // of a head, for one warp: eight for each column of a tile

// How the warps of a block share the product of weights and values: `down` tiles of 16 rows by `across` times 64
// columns. Warps of the same columns share the keys.
template <class Block, int down_tiles, int across_columns, int lane_key_count>
struct WeighShape {
  static constexpr int down = down_tiles, across = across_columns, lane_keys = lane_key_count;
  static constexpr int rows = down * tile_rows, warps = Block::threads / warp_size, key_parts = warps / across;
  static_assert(key_parts * across == warps && rows % warps == 0);

  // Rows of weights are an odd multiple of 16 bytes apart, to avoid bank conflicts.
  static constexpr int stride(int keys) { return tiles_over(keys, 16) * 16 + 8; }
  static constexpr int product_stride = value_columns + 4;

  // Shared memory of a block: for the weights, and later for their products.
  static constexpr int bytes(int keys) {
    const int weights = rows * stride(keys) * 2;
    constexpr int products = warps * rows * product_stride * 4;
    return weights > products ? weights : products;
  }
};

// The softmax of a block's rows. Each lane takes up to `lane_keys` keys. Writes rounded weights, zero past the last
// key, and the factors that the rows' products are still to be multiplied by.
template <class Shape, class Block>
constexpr void softmax_rows(Block& block, const AttentionCall& call, const GroupPlace& place, int first_row,
                            std::uint16_t* weights, float* factors) {
  constexpr int warp_rows = Shape::rows / Shape::warps, lane_keys = Shape::lane_keys;
  constexpr int at_once = lane_keys <= 20 && warp_rows % 2 == 0 ? 2 : 1;
  const int padded_keys = tiles_over(place.keys, 16) * 16;
  struct Mine {
    float scores[at_once][lane_keys];
  };
  typename Block::template Local<Mine> mine;
#pragma unroll
  for (int first = 0; first < warp_rows; first += at_once) {
    typename Block::template Local<float> most[at_once], sum[at_once];
    block.each([&](int thread) {
      Mine& own = mine[thread];
      const int lane = thread % warp_size;
#pragma unroll
      for (int i = 0; i < at_once; ++i) {
        const int row = row_within(first_row + thread / warp_size * warp_rows + first + i, place.rows);
        const float* const scores = place.scores(call, row);
#pragma unroll
        for (int j = 0; j < lane_keys; ++j) {
          own.scores[i][j] = scores[row_within(lane + j * warp_size, place.keys)];
        }
        if (call.mask == nullptr) continue;
        const float* const mask =
            call.mask + (std::int64_t{place.sample} * call.query.tokens + row % call.query.tokens) * place.keys;
#pragma unroll
        for (int j = 0; j < lane_keys; ++j) own.scores[i][j] += mask[row_within(lane + j * warp_size, place.keys)];
      }
#pragma unroll
      for (int i = 0; i < at_once; ++i) {
        float largest = own.scores[i][0];  // past the last key, its score is repeated
#pragma unroll
        for (int j = 0; j < lane_keys; ++j) largest = largest > own.scores[i][j] ? largest : own.scores[i][j];
        most[i][thread] = largest;
      }
    });
#pragma unroll
    for (int i = 0; i < at_once; ++i) block.warp_max(most[i]);
    block.each([&](int thread) {
      Mine& own = mine[thread];
#pragma unroll
      for (int i = 0; i < at_once; ++i) {
        float total = 0;
#pragma unroll
        for (int j = 0; j < lane_keys; ++j) {
          const bool is_key = thread % warp_size + j * warp_size < place.keys;
          own.scores[i][j] = is_key ? exp_negative(own.scores[i][j] - most[i][thread]) : 0.0F;
          total += own.scores[i][j];
        }
        sum[i][thread] = total;
      }
    });
#pragma unroll
    for (int i = 0; i < at_once; ++i) block.warp_sum(sum[i]);
    block.each([&](int thread) {
      const bool divide_now = call.rounding == ScoreRounding::each_step;
#pragma unroll
      for (int i = 0; i < at_once; ++i) {
        const int row = thread / warp_size * warp_rows + first + i;
        const float inverse = 1.0F / sum[i][thread];
#pragma unroll
        for (int j = 0; j < lane_keys; ++j) {
          const int key = thread % warp_size + j * warp_size;
          const float weight = mine[thread].scores[i][j];
          if (key < padded_keys) {
            weights[row * Shape::stride(place.keys) + key] =
                formats::bfloat16_of(divide_now ? weight * inverse : weight);
          }
        }
        factors[row] = divide_now ? 1.0F : inverse;
      }
    });
  }
  block.barrier();
}

// The softmax of a block's rows, times the values, for the columns from `first_column` on.
template <class Shape, class Block>
constexpr void weigh_tile(Block& block, const AttentionCall& call, int index, int first_row, int first_column,
                          void* shared, float* factors) {
  // Steps of 16 keys that are read before the first is multiplied. If registers can hold them, all are read, and even
  // before the softmax.
  constexpr int keys_at_once = Shape::key_parts * 16, all_steps = Shape::lane_keys * warp_size / keys_at_once;
  constexpr bool reads_ahead = Shape::down == 1 && all_steps <= 5;
  constexpr int down = Shape::down, unroll = reads_ahead ? all_steps : 2;
  const GroupPlace place(call, index);
  const int padded_keys = tiles_over(place.keys, 16) * 16, stride = Shape::stride(place.keys);
  auto* const weights = static_cast<std::uint16_t*>(shared);

  struct Mine {
    float sums[down][tile_columns][4];
    std::uint32_t a[unroll][down][4];
    Eight values[unroll][4];  // of the thread's four keys: eight columns each
  };
  typename Block::template Local<Mine> mine;
  const auto first_key = [&](int thread, int begin, int step) {
    return begin + (step * Shape::key_parts + thread / warp_size / Shape::across) * 16 + thread % 4 * 2;
  };
  const auto read_values = [&](int begin) {
    block.each([&](int thread) {
      const int own_column =
          first_column + thread / warp_size % Shape::across * value_columns + thread % warp_size / 4 * 8;
      const int column = own_column < call.size ? own_column : 0;
#pragma unroll
      for (int i = 0; i < unroll * 4; ++i) {
        const int key = first_key(thread, begin, i / 4) + i % 4 / 2 * 8 + i % 2;
        const int token = row_within(key, place.keys);  // past the last key, weights are zero
        mine[thread].values[i / 4][i % 4] = load_eight(place.joined(call.values, token) + column);
      }
    });
  };
  const auto read_weights = [&](int begin) {
    block.each([&](int thread) {
#pragma unroll
      for (int i = 0; i < unroll * down * 4; ++i) {
        const int step = i / 4 / down, y = i / 4 % down, row = y * tile_rows + thread % warp_size / 4 + i % 2 * 8;
        const int pair = first_key(thread, begin, step) + i % 4 / 2 * 8;
        mine[thread].a[step][y][i % 4] =
            pair < padded_keys
                ? *static_cast<const std::uint32_t*>(static_cast<const void*>(weights + row * stride + pair))
                : 0;
      }
    });
  };
  block.each([&](int thread) { mine[thread] = {}; });
  if constexpr (reads_ahead) read_values(0);
  softmax_rows<Shape>(block, call, place, first_row, weights, factors);
  for (int begin = 0; begin < padded_keys; begin += unroll * keys_at_once) {
    if constexpr (!reads_ahead) read_values(begin);
    read_weights(begin);
    block.issue_reads([&](int thread, float zero) {
#pragma unroll
      for (int i = 0; i < down * tile_columns * 4; ++i) {
        mine[thread].sums[i / 4 / tile_columns][i / 4 % tile_columns][i % 4] += zero;
      }
    });
#pragma unroll
    for (int step = 0; step < unroll; ++step) {
#pragma unroll
      for (int i = 0; i < tile_columns * down; ++i) {  // a tile for each of a thread's eight columns
        block.multiply(mine, [=](Mine& own) {
          const int column = i / down;
          const Eight(&values)[4] = own.values[step];
          const auto both = [&](int key) {
            return std::uint32_t{half_of(values[key], column)} | std::uint32_t{half_of(values[key + 1], column)} << 16;
          };
          const std::uint32_t(&a)[4] = own.a[step][i % down];
          return TileProduct{own.sums[i % down][column], {a[0], a[1], a[2], a[3]}, {both(0), both(2)}};
        });
      }
    }
  }
  block.barrier();                                     // all threads have read the weights
  auto* const products = static_cast<float*>(shared);  // [warp][row][column]
  block.each([&](int thread) {
    const int lane = thread % warp_size;
    struct alignas(16) Four {
      float at[4];
    };
#pragma unroll
    for (int i = 0; i < down * 8; ++i) {  // four adjacent values at a time
      const int y = i / 8, sum = i / 2 % 4, first = i % 2 * 4;
      const int row = y * tile_rows + tile_row(lane, sum), column = tile_column(lane, sum) * 8 + first;
      Four four;
#pragma unroll
      for (int j = 0; j < 4; ++j) four.at[j] = mine[thread].sums[y][first + j][sum];
      *static_cast<Four*>(static_cast<void*>(
          products + (thread / warp_size * Shape::rows + row) * Shape::product_stride + column)) = four;
    }
  });
  block.barrier();
  block.each([&](int thread) {
    constexpr int row_eights = Shape::across * value_columns / 8;
#pragma unroll
    for (int i = thread; i < Shape::rows * row_eights; i += Block::threads) {
      const int own_row = i / row_eights, own_column = i % row_eights * 8;
      const int row = first_row + own_row, column = first_column + own_column;
      if (row >= place.rows || column >= call.size) continue;
      Values sum{};
#pragma unroll
      for (int part = 0; part < Shape::key_parts; ++part) {
        const int warp = part * Shape::across + own_column / value_columns;
        const float* const from =
            products + (warp * Shape::rows + own_row) * Shape::product_stride + own_column % value_columns;
        const Values values = load_values<AsFloat>(from, 0);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum.at[j] += values.at[j];
      }
#pragma unroll
      for (int j = 0; j < 8; ++j) sum.at[j] *= factors[own_row];
      const int head = place.group * place.heads + row / call.query.tokens;
      const int token = place.sample * call.query.tokens + row % call.query.tokens;
      store_values<AsBfloat16>(call.out, (std::int64_t{token} * call.heads + head) * call.size + column, sum);
    }
  });
}

}  // namespace
}  // namespace pi0::model
