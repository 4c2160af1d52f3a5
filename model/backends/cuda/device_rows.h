// A quantized linear of few rows as a device kernel (see device_block.h). The kernel widens 8-bit codes and rounds x
// after reading them, multiplies on tensor cores, and rounds and compares the results itself.
#pragma once

#include "model/backends/cuda/device_loops.h"
#include "model/backends/cuda/device_product.h"

namespace pi0::model {
namespace {

using formats::FormatConstant;

// Two 8-bit codes, in the low half of `codes`, as a pair of float16, which can hold all their values.
template <Format format>
constexpr std::uint32_t widened_pair(std::uint32_t codes) {
  if constexpr (format == Format::float8_e5m2) {  // the upper byte of a float16
    return (codes & 0xFFU) << 8 | (codes & 0xFF00U) << 16;
  } else {
    static_assert(format == Format::float8_e4m3);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    std::uint32_t halves;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<std::uint16_t>(codes)));
    return halves;
#else
    const auto widen = [](std::uint32_t code) {
      // Shifted to the exponent and mantissa of a float32, a code is its value times a power of two.
      constexpr float power = std::bit_cast<float>(static_cast<std::uint32_t>(127 + 120) << 23);
      const std::uint32_t bits = (code & 0x80U) << 24 | (code & 0x7FU) << 20;
      const bool is_nan = (code & 0x7FU) == 0x7FU;
      return is_nan ? 0x7E00U : code_of<Format::float16>(std::bit_cast<float>(bits) * power);
    };
    return widen(codes & 0xFFU) | widen(codes >> 8 & 0xFFU) << 16;
#endif
  }
}

// A pair of bfloat16 rounded to a format of at most 16 bits, as a pair of float16.
template <Format format>
constexpr std::uint32_t rounded_pair(std::uint32_t pair) {
  const float low = formats::float_of_bfloat16(static_cast<std::uint16_t>(pair)),
              high = std::bit_cast<float>(pair & 0xFFFF0000U);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890  // two at once
  if constexpr (format == Format::float16) {
    std::uint32_t halves;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(halves) : "f"(high), "f"(low));
    return halves;
  }
  if constexpr (format == Format::float8_e4m3) {
    std::uint16_t codes;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(high), "f"(low));
    return widened_pair<format>(codes);
  }
#endif
  return code_of<Format::float16>(rounded_to<format>(low)) | code_of<Format::float16>(rounded_to<format>(high)) << 16;
}

// `input` is float32 if the rounded operands are the exact ones.
template <Format input>
struct HookedOperands {
  static constexpr bool is_code8 = formats::code_bits(input) == 8;
  HookedRowsCall::Part part;
  const std::uint16_t* x;
  int rows, in;
  bool sees_overflow;  // one tile of outputs reports x's overflow for all

  static constexpr Halves halves(int index) {
    return index == 0 && input != Format::float32 ? Halves::float16 : Halves::bfloat16;
  }
  static constexpr bool converts_weight() { return is_code8; }
  static constexpr bool converts_x() { return input != Format::float32; }

  template <Terms terms>
  constexpr Eight weight(int index, int row, int term) const {
    const std::int64_t first = std::int64_t{row_within(row, part.out)} * in;
    if (index == 1) return eight_terms<terms>(part.exact_weight + first, term, in);
    if constexpr (is_code8) {
      if (terms == Terms::rest && term >= in) return {};
      struct alignas(8) Codes {
        std::uint32_t fours[2];
      };
      const auto codes = *static_cast<const Codes*>(
          static_cast<const void*>(static_cast<const std::uint8_t*>(part.weight) + first + term));
      return {{codes.fours[0], codes.fours[1], 0, 0}};
    } else {
      return eight_terms<terms>(static_cast<const std::uint16_t*>(part.weight) + first, term, in);
    }
  }
  template <Terms terms>
  constexpr Eight x_row(int row, int term) const {
    return eight_terms<terms>(x + std::int64_t{row_within(row, rows)} * in, term, in);
  }

  constexpr Eight converted_weight(const Eight& codes) const {
    if constexpr (is_code8) {
      return {{widened_pair<input>(codes.pairs[0] & 0xFFFFU), widened_pair<input>(codes.pairs[0] >> 16),
               widened_pair<input>(codes.pairs[1] & 0xFFFFU), widened_pair<input>(codes.pairs[1] >> 16)}};
    } else {
      return codes;
    }
  }

  constexpr Eight converted_x(const Eight& eight) const {
    Eight result;
#pragma unroll
    for (int i = 0; i < 4; ++i) result.pairs[i] = rounded_pair<input>(eight.pairs[i]);
    if (sees_overflow) {
      bool beyond = false;
#pragma unroll
      for (int i = 0; i < 8; ++i) beyond |= is_beyond<input>(formats::float_of_bfloat16(half_of(eight, i)));
      if (beyond) *part.input_overflowed = 1;
    }
    return result;
  }
};

// A value rounded to a format that is known only now.
constexpr float rounded_to(Format format, float value, bool& beyond) {
  return formats::with_format(format, [&](auto known) {
    constexpr Format constant = decltype(known)::value;
    beyond |= is_beyond<constant>(value);
    if constexpr (constant == Format::float32) {
      return value;
    } else {
      return round_one<constant>(value);
    }
  });
}

// Computes a tile of outputs, counted over all parts, for tiles · 8 rows of x. With two products, the second one is of
// the exact operands.
template <Format input, int products, int tiles, class Block>
constexpr void hooked_rows_tile(Block& block, const HookedRowsCall& call, int output_tile, int row_tile,
                                WarpSums<Block, tiles> (&sums)[products]) {
  HookedRowsCall::Part part = call.parts[0];
#pragma unroll
  for (int i = 1; i < HookedRowsCall::most_parts; ++i) {
    const int tiles_before = tiles_over(part.out, tile_rows);
    if (i >= call.part_count || output_tile < tiles_before) break;
    output_tile -= tiles_before;
    part = call.parts[i];
  }
  constexpr int columns = WarpSums<Block, tiles>::columns;
  const int first_out = output_tile * tile_rows, first_row = row_tile * columns;
  const HookedOperands<input> operands{part, call.x, call.rows, call.in, output_tile == 0};
  multiply_tile<products, tiles>(block, operands, first_out, first_row, sums);
  const ResultCall& result = part.result;
  typename Block::template Local<PartSums> errors;
  block.each([&](int thread) {
    errors[thread] = {};
    bool beyond = false;
    for (int i = thread; i < columns * tile_rows; i += Block::threads) {
      const int column = i / tile_rows, row = i % tile_rows;
      const int x_row = first_row + column, out = first_out + row;
      if (x_row >= call.rows || out >= part.out) continue;
      const float sum = sums[0].total(column, row);
      const float value = rounded_to(result.format, result.bias != nullptr ? sum + result.bias[out] : sum, beyond);
      store<Format::bfloat16, Format::float32>(result.out, std::int64_t{x_row} * part.out + out, value);
      if (result.errors == nullptr) continue;
      const float exact = sums[products - 1].total(column, row);
      compare(errors[thread], result.exact_bias != nullptr ? exact + result.exact_bias[out] : exact, value);
    }
    if (beyond) *result.overflowed = 1;
  });
  if (result.errors == nullptr) return;
  const int row_tiles = tiles_over(call.rows, columns);
  add_errors(block, errors, result, 0, output_tile * row_tiles + row_tile, row_tiles * tiles_over(part.out, tile_rows));
}

// The number of tiles of 16 outputs of all parts.
constexpr int output_tiles(const HookedRowsCall& call) {
  int tiles = 0;
  for (int i = 0; i < call.part_count; ++i) tiles += tiles_over(call.parts[i].out, tile_rows);
  return tiles;
}

// Calls `call` with the format that x is rounded to as a compile-time constant; with float32 for bfloat16, which leaves
// x as it is.
template <class Call>
void with_input(Format input, const Call& call) {
  formats::with_format(input, [&](auto known) {
    if constexpr (known() == Format::bfloat16) {
      call(FormatConstant<Format::float32>{});
    } else {
      call(known);
    }
  });
}

}  // namespace
}  // namespace pi0::model
