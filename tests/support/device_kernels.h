// A device's kernels with its threads one after the other.
#pragma once

#include "model/backends/cuda/device_rows.h"
#include "support/turn_block.h"

namespace pi0::test {
namespace {

template <int count>
void round_neighbours_in_turn(const model::RoundCall& call) {
  model::with_constants(call.format, call.in_storage, call.out_storage, [&](auto format, auto in, auto out) {
    constexpr std::int64_t threads = 7;
    for (std::int64_t thread = 0; thread < threads; ++thread) {
      if (model::round_values<decltype(format)::value, decltype(in)::value, decltype(out)::value, count>(call, thread,
                                                                                                         threads)) {
        model::set_flags(call);
      }
    }
  });
}

void round_in_turn(const model::RoundCall& call, void*) {
  model::takes_eight(call) ? round_neighbours_in_turn<8>(call) : round_neighbours_in_turn<1>(call);
}

template <int count>
void finish_neighbours_in_turn(const model::SumsCall& call) {
  using formats::Format;
  const int parts = model::partial_count(call.result.values);
  TurnBlock<32> block;
  for (int observation = 0; observation < call.result.records * call.result.calls; ++observation) {
    for (int part = 0; part < parts; ++part) {
      model::with_constants(
          call.result.format, call.in_storage, call.result.out_storage, [&](auto format, auto in, auto out) {
            if constexpr (decltype(out)::value == Format::float32 || decltype(out)::value == Format::bfloat16) {
              model::finish_part<decltype(format)::value, decltype(in)::value, decltype(out)::value, count>(
                  block, call, observation, part, parts);
            }
          });
    }
  }
}

void finish_in_turn(const model::SumsCall& call, void*) {
  model::takes_eight(call) ? finish_neighbours_in_turn<8>(call) : finish_neighbours_in_turn<1>(call);
}

template <int tiles>
void hooked_rows_in_turn(const model::HookedRowsCall& call) {
  using Block = TurnBlock<32>;
  Block block;
  model::WarpSums<Block, tiles> one[1], two[2];
  for (int output = 0; output < model::output_tiles(call); ++output) {
    for (int row = 0; row < model::tiles_over(call.rows, tiles * model::tile_columns); ++row) {
      model::with_input(call.input, [&](auto input) {
        constexpr formats::Format format = decltype(input)::value;
        call.compares_exact ? model::hooked_rows_tile<format, 2, tiles>(block, call, output, row, two)
                            : model::hooked_rows_tile<format, 1, tiles>(block, call, output, row, one);
      });
    }
  }
}

void few_rows_in_turn(const model::HookedRowsCall& call, void*) {
  call.rows <= 8    ? hooked_rows_in_turn<1>(call)
  : call.rows <= 16 ? hooked_rows_in_turn<2>(call)
                    : hooked_rows_in_turn<4>(call);
}

constexpr model::DeviceKernels kernels_in_turn = {round_in_turn, finish_in_turn, few_rows_in_turn};

}  // namespace
}  // namespace pi0::test
