// Shared by the kernels of AVX-512: gemm_avx512.cpp, gemm_avx512_bf16.cpp and gemm_amx.cpp.
#pragma once

#include <immintrin.h>

#include "model/backends/cpu/gemm_tile.h"
#include "model/backends/cpu/layer_loops.h"

namespace pi0::model {
namespace {

struct Floats {
  using Sum = __m512;
  static constexpr int lanes = 16;
  static constexpr int max_rows = 12;
  static __m512 zero() { return _mm512_setzero_ps(); }
  static __m512 add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
  static __m512 load(const float* sums) { return _mm512_loadu_ps(sums); }
  static void store(float* sums, __m512 sum) { _mm512_storeu_ps(sums, sum); }
  static __m512 multiply_add(__m512 sum, __m512 x, __m512 lanes) { return _mm512_fmadd_ps(x, lanes, sum); }
  static __m512 load_lanes(const std::uint32_t* lanes) { return _mm512_loadu_ps(lanes); }
  static __m512 broadcast(const std::uint32_t* x) { return _mm512_set1_ps(*reinterpret_cast<const float*>(x)); }
  static __m512 rounded_to_float16(__m512 sum) {
    return _mm512_cvtph_ps(_mm512_cvtps_ph(sum, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
};

// 16 pairs of bfloat16 from 16 pairs of codes.
inline __m512i pairs_of_e5m2(__m256i codes) {  // e5m2 is the upper half of a float16
  const __m512i halves = _mm512_slli_epi16(_mm512_cvtepu8_epi16(codes), 8);
  const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
  const __m512 high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
  // e5m2 fits bfloat16, so the lower halves of these floats are zero; take the upper ones.
  const __m512i order = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27, 25,
                                         23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return _mm512_permutex2var_epi16(_mm512_castps_si512(low), order, _mm512_castps_si512(high));
}

inline __m512i pairs_of_e4m3(__m256i codes) {
  const __m512i wide = _mm512_cvtepu8_epi16(codes);
  const __m512i sign = _mm512_slli_epi16(_mm512_and_si512(wide, _mm512_set1_epi16(0x80)), 8);
  const __m512i magnitude = _mm512_and_si512(wide, _mm512_set1_epi16(0x7F));
  // Shifted into a float16, a code is its value times 2^-8, subnormals included. NaN (0x7F) is set below.
  const __m512i halves = _mm512_slli_epi16(magnitude, 7);
  const __m512 scale = _mm512_set1_ps(256.0F);
  const __m512 low = _mm512_mul_ps(_mm512_cvtph_ps(_mm512_castsi512_si256(halves)), scale);
  const __m512 high = _mm512_mul_ps(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1)), scale);
  const __m512i order = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27, 25,
                                         23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  const __m512i values = _mm512_permutex2var_epi16(_mm512_castps_si512(low), order, _mm512_castps_si512(high));
  const __mmask32 nan = _mm512_cmpeq_epi16_mask(magnitude, _mm512_set1_epi16(0x7F));
  return _mm512_or_si512(_mm512_mask_set1_epi16(values, nan, 0x7FC0), sign);
}

template <Format format>
__m512i load_pairs(const void* codes, std::int64_t pair) {
  if constexpr (format == Format::bfloat16) {
    return _mm512_loadu_si512(static_cast<const std::uint32_t*>(codes) + pair);
  } else {
    static_assert(format == Format::float8_e4m3 || format == Format::float8_e5m2);
    const __m256i bytes =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const std::uint16_t*>(codes) + pair));
    return format == Format::float8_e4m3 ? pairs_of_e4m3(bytes) : pairs_of_e5m2(bytes);
  }
}

struct TwoSteps {
  __m512 first;
  __m512 second;
};

// The first and the second of 16 pairs as floats.
template <Format format>
TwoSteps load_steps(const void* codes, std::int64_t pair) {
  if constexpr (format == Format::float32) {
    const float* floats = static_cast<const float*>(codes) + 2 * pair;
    const __m512 low = _mm512_loadu_ps(floats), high = _mm512_loadu_ps(floats + 16);
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return {_mm512_permutex2var_ps(low, even, high), _mm512_permutex2var_ps(low, odd, high)};
  } else if constexpr (format == Format::float16) {
    const __m512i pairs = _mm512_loadu_si512(static_cast<const std::uint32_t*>(codes) + pair);
    return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(pairs)),
            _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs, 16)))};
  } else {
    const __m512i pairs = load_pairs<format>(codes, pair);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-65536)))};
  }
}

template <Format format>
void widen_to_floats(const void* codes, std::int64_t pairs, std::uint32_t* lanes) {
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    for (int half = 0; half < panel_width; half += 16) {
      const TwoSteps steps = load_steps<format>(codes, pair * panel_width + half);
      _mm512_storeu_ps(lanes + 2 * pair * panel_width + half, steps.first);
      _mm512_storeu_ps(lanes + (2 * pair + 1) * panel_width + half, steps.second);
    }
  }
}

template <Format format>
void widen_to_pairs(const void* codes, std::int64_t pairs, std::uint32_t* lanes) {
  for (std::int64_t at = 0; at < pairs * panel_width; at += 16) {
    _mm512_storeu_si512(lanes + at, load_pairs<format>(codes, at));
  }
}

void widen(const void* codes, Format format, Lane lane, std::int64_t pairs, std::uint32_t* lanes) {
  formats::with_format(format, [&](auto known) {
    if constexpr (formats::fits_bfloat16(known())) {
      if (lane == Lane::bfloat16_pair) return widen_to_pairs<known()>(codes, pairs, lanes);
    }
    widen_to_floats<known()>(codes, pairs, lanes);
  });
}

}  // namespace
}  // namespace pi0::model
