#include <algorithm>
#include <bit>
#include <stdexcept>

#include "quant/kernels/rounding_kernels.h"

namespace pi0::quant {
namespace {

// One value. Above the smallest normal the float32's own bits are rounded (a carry runs into the
// exponent as it should); below it, adding and subtracting a power of two leaves evenly spaced values.
template <Format format>
inline float round_one(float value) {
  constexpr Grid grid = grid_of(format);
  constexpr int dropped_bits = 23 - grid.mantissa_bits;
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits & 0x80000000U;
  const std::uint32_t magnitude = bits ^ sign;
  const std::uint32_t half_below = (1U << (dropped_bits - 1)) - 1;
  const std::uint32_t odd = (magnitude >> dropped_bits) & 1U;
  std::uint32_t rounded = (magnitude + half_below + odd) & ~((1U << dropped_bits) - 1);
  if constexpr (grid.min_exponent > -126) {
    constexpr auto smallest_normal = static_cast<std::uint32_t>(127 + grid.min_exponent) << 23;
    constexpr auto magic_bits =
        static_cast<std::uint32_t>(127 + grid.min_exponent + dropped_bits) << 23;
    const float magic = std::bit_cast<float>(magic_bits);
    const float spaced = (std::bit_cast<float>(magnitude) + magic) - magic;
    rounded = magnitude < smallest_normal ? std::bit_cast<std::uint32_t>(spaced) : rounded;
  }
  constexpr std::uint32_t infinity = 0x7F800000U;
  constexpr std::uint32_t beyond = grid.overflow == Overflow::saturate
                                       ? std::bit_cast<std::uint32_t>(grid.largest)
                                       : infinity;
  rounded = rounded > std::bit_cast<std::uint32_t>(grid.largest) ? beyond : rounded;
  rounded = magnitude > infinity ? magnitude : rounded;  // NaN
  return std::bit_cast<float>(rounded | sign);
}

template <Format format>
[[gnu::always_inline]] inline float round_all(const float* __restrict in, float* __restrict out,
                                              std::int64_t count) {
  std::uint32_t largest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(in[i]) & 0x7FFFFFFFU;
    largest = std::max(largest, magnitude > 0x7F800000U ? 0 : magnitude);
    out[i] = round_one<format>(in[i]);
  }
  return std::bit_cast<float>(largest);
}

// The compiler vectorises each for these instruction sets, and the loader picks one.
[[gnu::target_clones("arch=skylake-avx512", "avx2", "default")]]
float round_float16(const float* in, float* out, std::int64_t count) {
  return round_all<Format::float16>(in, out, count);
}
[[gnu::target_clones("arch=skylake-avx512", "avx2", "default")]]
float round_bfloat16(const float* in, float* out, std::int64_t count) {
  return round_all<Format::bfloat16>(in, out, count);
}
[[gnu::target_clones("arch=skylake-avx512", "avx2", "default")]]
float round_e4m3(const float* in, float* out, std::int64_t count) {
  return round_all<Format::float8_e4m3>(in, out, count);
}
[[gnu::target_clones("arch=skylake-avx512", "avx2", "default")]]
float round_e5m2(const float* in, float* out, std::int64_t count) {
  return round_all<Format::float8_e5m2>(in, out, count);
}

}  // namespace

float round_on_cpu(const float* in, float* out, std::int64_t count, Format format) {
  switch (format) {
    case Format::float16: return round_float16(in, out, count);
    case Format::bfloat16: return round_bfloat16(in, out, count);
    case Format::float8_e4m3: return round_e4m3(in, out, count);
    case Format::float8_e5m2: return round_e5m2(in, out, count);
    case Format::float32: break;
  }
  throw std::logic_error("round_on_cpu: float32 needs no rounding");
}

}  // namespace pi0::quant
