// gemm_coded.h's widening to pairs with AVX-512 permutes, for the instruction sets that multiply pairs.
#pragma once

#include "model/backends/cpu/gemm_coded.h"
#include "model/backends/cpu/gemm_pairs.h"

namespace pi0::model {
namespace {

// Two codes to a byte: a table of sixteen bfloat16 values in a register.
void widen_half_bytes_to_pairs(const std::uint8_t* codes, const CodeTable& table, std::int64_t pairs,
                               std::uint32_t* lanes) {
  alignas(64) std::uint32_t values[16];
  for (int code = 0; code < 16; ++code)
    values[code] = table.low[code] | static_cast<std::uint32_t>(table.high[code]) << 8;
  const __m512i known = _mm512_load_si512(values), lower = _mm512_set1_epi32(15);
  for (std::int64_t at = 0; at < pairs * panel_width; at += 16) {
    const __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + at)));
    const __m512i first = _mm512_permutexvar_epi32(_mm512_and_si512(both, lower), known);
    const __m512i second = _mm512_permutexvar_epi32(_mm512_srli_epi32(both, 4), known);
    _mm512_storeu_si512(lanes + at, _mm512_or_si512(first, _mm512_slli_epi32(second, 16)));
  }
}

// A byte of the table for each of 64 codes.
inline __m512i looked_up(const std::uint8_t* table, __m512i codes) {
  const __m512i lower = _mm512_permutex2var_epi8(_mm512_load_si512(table), codes, _mm512_load_si512(table + 64));
  const __m512i upper = _mm512_permutex2var_epi8(_mm512_load_si512(table + 128), codes, _mm512_load_si512(table + 192));
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), lower, upper);
}

void widen_elements_with_permutes(const void* codes, const CodeTable& table, Lane lane, std::int64_t pairs,
                                  std::uint32_t* lanes) {
  if (lane == Lane::float32) return widen_elements(codes, table, lane, pairs, lanes);
  const auto* const bytes = static_cast<const std::uint8_t*>(codes);
  if (table.two_to_a_byte) return widen_half_bytes_to_pairs(bytes, table, pairs, lanes);
  // The unpack instructions work within quarters of a vector; this order makes up for it.
  const __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const __m512i code = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(bytes + pair * 2 * panel_width));
    const __m512i low = looked_up(table.low, code), high = looked_up(table.high, code);
    _mm512_storeu_si512(lanes + pair * panel_width, _mm512_unpacklo_epi8(low, high));
    _mm512_storeu_si512(lanes + pair * panel_width + 16, _mm512_unpackhi_epi8(low, high));
  }
}

}  // namespace
}  // namespace pi0::model
