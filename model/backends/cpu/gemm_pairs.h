// Widening to pairs with byte permutes (AVX-512 VBMI): 64 codes of 8 bits at a time.
#pragma once

#include "model/backends/cpu/gemm_avx512.h"
#include "quant/formats/code_values.h"

namespace pi0::model {
namespace {

// The low and high bytes of every positive code's value as bfloat16.
struct alignas(64) PairTables {
  std::uint8_t low[128];
  std::uint8_t high[128];
};

constexpr PairTables pair_tables_of(const std::array<float, 256>& values) {
  PairTables tables{};
  for (std::size_t code = 0; code < 128; ++code) {
    const auto bits = std::bit_cast<std::uint32_t>(values[code]);
    tables.low[code] = static_cast<std::uint8_t>(bits >> 16);
    tables.high[code] = static_cast<std::uint8_t>(bits >> 24);
  }
  return tables;
}

template <Format format>
constexpr PairTables pair_tables = pair_tables_of(formats::code_values<format>);

void widen_bytes_to_pairs(const void* codes, const PairTables& tables, std::int64_t pairs, std::uint32_t* lanes) {
  const __m512i low_0 = _mm512_load_si512(tables.low), low_1 = _mm512_load_si512(tables.low + 64);
  const __m512i high_0 = _mm512_load_si512(tables.high), high_1 = _mm512_load_si512(tables.high + 64);
  // The unpack instructions work within quarters of a vector; this order makes up for it.
  const __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
  const auto* bytes = static_cast<const std::uint8_t*>(codes);
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const __m512i code = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(bytes + pair * 2 * panel_width));
    const __m512i low = _mm512_permutex2var_epi8(low_0, code, low_1);
    const __m512i sign = _mm512_and_si512(code, _mm512_set1_epi8(-128));
    const __m512i high = _mm512_or_si512(_mm512_permutex2var_epi8(high_0, code, high_1), sign);
    _mm512_storeu_si512(lanes + pair * panel_width, _mm512_unpacklo_epi8(low, high));
    _mm512_storeu_si512(lanes + pair * panel_width + 16, _mm512_unpackhi_epi8(low, high));
  }
}

void widen_with_permutes(const void* codes, Format format, Lane lane, std::int64_t pairs, std::uint32_t* lanes) {
  if (lane == Lane::float32 || formats::code_bits(format) != 8) return widen(codes, format, lane, pairs, lanes);
  formats::with_format(format, [&](auto known) {
    if constexpr (formats::code_bits(known()) == 8) widen_bytes_to_pairs(codes, pair_tables<known()>, pairs, lanes);
  });
}

}  // namespace
}  // namespace pi0::model
