// A device's kernels with its threads one after the other.
#pragma once

#include "quant/kernels/device_rows.h"
#include "support/turn_block.h"

namespace pi0::test {
namespace {

template <int count>
void round_neighbours_in_turn(const quant::RoundCall& call) {
  quant::with_constants(call.format, call.in_storage, call.out_storage, [&](auto format, auto in, auto out) {
    constexpr std::int64_t threads = 7;
    for (std::int64_t thread = 0; thread < threads; ++thread) {
      if (quant::round_values<decltype(format)::value, decltype(in)::value, decltype(out)::value, count>(call, thread,
                                                                                                         threads)) {
        quant::set_flags(call);
      }
    }
  });
}

void round_in_turn(const quant::RoundCall& call, void*) {
  quant::takes_eight(call) ? round_neighbours_in_turn<8>(call) : round_neighbours_in_turn<1>(call);
}

template <int count>
void finish_neighbours_in_turn(const quant::SumsCall& call) {
  using formats::Format;
  const int parts = quant::partial_count(call.result.values);
  TurnBlock<32> block;
  for (int observation = 0; observation < call.result.records * call.result.calls; ++observation) {
    for (int part = 0; part < parts; ++part) {
      quant::with_constants(
          call.result.format, call.in_storage, call.result.out_storage, [&](auto format, auto in, auto out) {
            if constexpr (decltype(out)::value == Format::float32 || decltype(out)::value == Format::bfloat16) {
              quant::finish_part<decltype(format)::value, decltype(in)::value, decltype(out)::value, count>(
                  block, call, observation, part, parts);
            }
          });
    }
  }
}

void finish_in_turn(const quant::SumsCall& call, void*) {
  quant::takes_eight(call) ? finish_neighbours_in_turn<8>(call) : finish_neighbours_in_turn<1>(call);
}

template <int tiles>
void hooked_rows_in_turn(const quant::HookedRowsCall& call) {
  using Block = TurnBlock<32>;
  Block block;
  model::WarpSums<Block, tiles> one[1], two[2];
  for (int output = 0; output < quant::output_tiles(call); ++output) {
    for (int row = 0; row < model::tiles_over(call.rows, tiles * model::tile_columns); ++row) {
      quant::with_input(call.input, [&](auto input) {
        constexpr quant::Format format = decltype(input)::value;
        call.compares_exact ? quant::hooked_rows_tile<format, 2, tiles>(block, call, output, row, two)
                            : quant::hooked_rows_tile<format, 1, tiles>(block, call, output, row, one);
      });
    }
  }
}

void few_rows_in_turn(const quant::HookedRowsCall& call, void*) {
  call.rows <= 8    ? hooked_rows_in_turn<1>(call)
  : call.rows <= 16 ? hooked_rows_in_turn<2>(call)
                    : hooked_rows_in_turn<4>(call);
}

constexpr quant::DeviceKernels kernels_in_turn = {round_in_turn, finish_in_turn, few_rows_in_turn};

}  // namespace
}  // namespace pi0::test
