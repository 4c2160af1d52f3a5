// The kernels of a device's layers with their blocks and threads one after the other.
#pragma once

#include <cstddef>
#include <vector>

#include "model/backends/cuda/device_attention.h"
#include "model/backends/cuda/device_layers.h"
#include "model/backends/cuda/device_product.h"
#include "support/turn_block.h"

namespace pi0::test {
namespace {

using model::AsBfloat16;
using model::AsFloat;
using model::tiles_over;

void norm_in_turn(const model::NormCall& call, void*) {
  constexpr int threads = 64;
  TurnBlock<threads> block;
  constexpr int turns = model::NormCall::most_width / 8 / threads;
  for (int row = 0; row < call.rows; ++row) {
    call.in_bfloat16 ? model::norm_row<AsBfloat16, turns>(block, call, row)
                     : model::norm_row<AsFloat, turns>(block, call, row);
  }
}

void rotate_in_turn(const model::RotateCall* calls, int count, void*) {
  for (int i = 0; i < count; ++i) {
    for (int thread = 0; thread < 5; ++thread) {
      calls[i].in_bfloat16 ? model::rotate_pairs<AsBfloat16>(calls[i], thread, 5)
                           : model::rotate_pairs<AsFloat>(calls[i], thread, 5);
    }
  }
}

void gelu_in_turn(const model::GeluCall& call, void*) {
  for (int thread = 0; thread < 5; ++thread) {
    call.in_bfloat16 ? model::gelu_values<AsBfloat16>(call, thread, 5) : model::gelu_values<AsFloat>(call, thread, 5);
  }
}

template <int down, int across>
void scores_in_turn(const model::AttentionCall& call, int rows, int keys) {
  TurnBlock<64> block;
  constexpr int block_keys = across * model::tile_columns * 2;
  for (int group = 0; group < call.samples * call.groups; ++group) {
    for (int row = 0; row < rows; row += down * model::tile_rows) {
      for (int key = 0; key < keys; key += block_keys) model::score_tile<down, across>(block, call, group, row, key);
    }
  }
}

template <int down, int across, int lane_keys>
void weigh_in_turn(const model::AttentionCall& call, int rows, int keys) {
  using Block = TurnBlock<256>;
  using Shape = model::WeighShape<Block, down, across, lane_keys>;
  Block block;
  std::vector<std::max_align_t> shared(static_cast<std::size_t>(Shape::bytes(keys)) / sizeof(std::max_align_t) + 1);
  float factors[Shape::rows];
  for (int group = 0; group < call.samples * call.groups; ++group) {
    for (int row = 0; row < rows; row += Shape::rows) {
      for (int column = 0; column < call.size; column += across * model::value_columns) {
        model::weigh_tile<Shape>(block, call, group, row, column, shared.data(), factors);
      }
    }
  }
}

// With tiles of one shape where the rows are few, of another elsewhere.
void attend_in_turn(const model::AttentionCall& call, void*) {
  const int rows = call.heads / call.groups * call.query.tokens;
  const int keys = call.keys[0].tokens + call.keys[1].tokens;
  if (rows > 150) {
    scores_in_turn<2, 4>(call, rows, keys);
    keys <= 256   ? weigh_in_turn<2, 2, 8>(call, rows, keys)
    : keys <= 640 ? weigh_in_turn<2, 4, 20>(call, rows, keys)
                  : weigh_in_turn<1, 4, 64>(call, rows, keys);
  } else {
    scores_in_turn<1, 2>(call, rows, keys);
    keys <= 640 ? weigh_in_turn<1, 1, 20>(call, rows, keys) : weigh_in_turn<1, 1, 64>(call, rows, keys);
  }
}

template <int tiles>
void tiles_in_turn(const model::FewRowsCall& call) {
  using Block = TurnBlock<64>;
  Block block;
  model::WarpSums<Block, tiles> one[1], two[2];
  for (int output = 0; output < model::output_tiles(call); ++output) {
    for (int row = 0; row < tiles_over(call.rows, tiles * model::tile_columns); ++row) {
      call.gated ? model::few_rows_tile<2, tiles>(block, call, output, row, two)
                 : model::few_rows_tile<1, tiles>(block, call, output, row, one);
    }
  }
}

void layer_rows_in_turn(const model::FewRowsCall& call, void*) {
  call.rows <= 8 ? tiles_in_turn<1>(call) : call.rows <= 16 ? tiles_in_turn<2>(call) : tiles_in_turn<4>(call);
}

constexpr model::DeviceLayers layers_in_turn = {norm_in_turn, rotate_in_turn, gelu_in_turn, attend_in_turn,
                                                layer_rows_in_turn};

}  // namespace
}  // namespace pi0::test
