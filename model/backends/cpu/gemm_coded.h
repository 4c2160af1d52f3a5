// Loops over codes of scaled formats, written once for all instruction sets; in an unnamed namespace like gemm_tile.h.
#pragma once

#include <bit>
#include <cstdint>

#include "model/backends/cpu/gemm_kernels.h"
#include "quant/formats/bfloat16.h"

namespace pi0::model {
namespace {

// The two codes of a pair of inputs.
struct CodePair {
  std::uint8_t first, second;
};
inline CodePair code_pair(const std::uint8_t* codes, std::int64_t pair, bool two_to_a_byte) {
  if (two_to_a_byte) return {static_cast<std::uint8_t>(codes[pair] & 15U), static_cast<std::uint8_t>(codes[pair] >> 4)};
  return {codes[2 * pair], codes[2 * pair + 1]};
}

// To floats: only instruction sets with permutes multiply pairs.
void widen_elements(const void* codes, const CodeTable& table, Lane, std::int64_t pairs, std::uint32_t* lanes) {
  const auto* const bytes = static_cast<const std::uint8_t*>(codes);
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    std::uint32_t* const first = lanes + 2 * pair * panel_width;
    for (std::int64_t column = 0; column < panel_width; ++column) {
      const CodePair both = code_pair(bytes, pair * panel_width + column, table.two_to_a_byte);
      first[column] = std::bit_cast<std::uint32_t>(table.values[both.first]);
      first[panel_width + column] = std::bit_cast<std::uint32_t>(table.values[both.second]);
    }
  }
}

// The results must fit bfloat16 if lanes hold pairs.
void scale_elements(std::uint32_t* lanes, Lane lane, std::int64_t pairs, const PanelScales& by) {
  float zero_points[panel_width] = {};
  for (std::int64_t i = 0; by.zero_points != nullptr && i < panel_width; ++i) zero_points[i] = by.zero_points[i];
  const std::int64_t steps = lane == Lane::float32 ? 2 * pairs : pairs;
  for (std::int64_t step = 0; step < steps; ++step) {
    std::uint32_t* const row = lanes + step * panel_width;
    const auto scaled = [&](std::uint32_t bits, std::int64_t i) {
      return std::bit_cast<std::uint32_t>((std::bit_cast<float>(bits) - zero_points[i]) * by.scales[i]);
    };
    if (lane == Lane::float32) {
#pragma GCC ivdep
      for (std::int64_t i = 0; i < panel_width; ++i) row[i] = scaled(row[i], i);
    } else {
#pragma GCC ivdep
      for (std::int64_t i = 0; i < panel_width; ++i) {
        row[i] = (scaled(row[i] & 0xFFFF0000U, i) & 0xFFFF0000U) | scaled(row[i] << 16, i) >> 16;
      }
    }
  }
}

void add_scaled(float* sums, const float* more, std::int64_t rows, const SumScales& by) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const float of_row = by.rows[row * by.row_stride];
    const float* const from = more + row * panel_width;
    float* const to = sums + row * panel_width;
#pragma GCC ivdep
    for (std::int64_t i = 0; i < panel_width; ++i) {
      to[i] = (by.go_on ? to[i] : 0.0F) + from[i] * (of_row * by.columns[i]);
    }
  }
}

}  // namespace
}  // namespace pi0::model
