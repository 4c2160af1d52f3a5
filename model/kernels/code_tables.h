// Every 8-bit code's value, made by the compiler.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace pi0::model {
namespace {

// A sign bit, `exponent_bits` with a bias of 2^(n-1)-1, the rest mantissa; subnormals as in IEEE.
constexpr float decoded(std::uint32_t code, int bits, int exponent_bits) {
  const int mantissa_bits = bits - 1 - exponent_bits;
  const std::uint32_t mantissa = code & ((1U << mantissa_bits) - 1);
  const int exponent = static_cast<int>(code >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const auto power = [](int n) { return std::bit_cast<float>(static_cast<std::uint32_t>(n + 127) << 23); };
  const float fraction = static_cast<float>(mantissa) * power(-mantissa_bits);
  const float value = exponent == 0 ? fraction * power(1 - bias) : (1.0F + fraction) * power(exponent - bias);
  return (code >> (bits - 1)) != 0 ? -value : value;
}

constexpr std::array<float, 256> table_of(int exponent_bits, bool has_infinity) {
  std::array<float, 256> table{};
  constexpr float nan = std::bit_cast<float>(0x7FC00000U), infinity = std::bit_cast<float>(0x7F800000U);
  for (std::uint32_t code = 0; code < 256; ++code) {
    const std::uint32_t magnitude = code & 0x7FU;
    float value = decoded(code, 8, exponent_bits);
    if (!has_infinity && magnitude == 0x7F) value = nan;
    if (has_infinity && magnitude >= 0x7C) value = magnitude > 0x7C ? nan : code < 128 ? infinity : -infinity;
    table[code] = value;
  }
  return table;
}

constexpr std::array<float, 256> e4m3_table = table_of(4, false);
constexpr std::array<float, 256> e5m2_table = table_of(5, true);

}  // namespace
}  // namespace pi0::model
