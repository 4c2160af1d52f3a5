// The formats by themselves: what there is to know of each, codes, and rows in memory. Values are in rounding_test.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "quant/formats/code_values.h"
#include "quant/formats/rounding_kernels.h"
#include "quant/formats/rounding_value.h"
#include "support/catch.h"
#include "support/instruction_sets.h"

namespace pi0 {
namespace {

using formats::Format;
using formats::RoundingKernels;

TEST_CASE("a format's name finds it, and no other does", "[formats]") {
  for (const Format format : formats::all_formats) CHECK(formats::find_format(name_of(format)) == format);
  CHECK_FALSE(formats::find_format("float8"));
  CHECK_FALSE(formats::find_format("float4_e2m1"));  // of scaled formats: number_format.h
  CHECK_FALSE(formats::find_format(""));
}

TEST_CASE("what a format holds follows from its grid", "[formats]") {
  CHECK(formats::first_beyond(Format::float32) == std::numeric_limits<float>::infinity());
  CHECK(formats::first_beyond(Format::float16) == 65520.0F);
  CHECK(formats::first_beyond(Format::float8_e4m3) == 464.0F);
  CHECK(formats::first_beyond(Format::float8_e5m2) == 61440.0F);
  for (const Format format : formats::all_formats) {
    CHECK(formats::fits_bfloat16(format) == (format != Format::float32 && format != Format::float16));
  }
}

TEST_CASE("what fits bfloat16 still does after every plain cast", "[formats]") {
  std::vector<float> values(1 << 16), rounded(values.size());
  for (std::size_t half = 0; half < values.size(); ++half) {
    values[half] = formats::float_of_bfloat16(static_cast<std::uint16_t>(half));
  }
  const auto count = static_cast<std::int64_t>(values.size());
  for (const Format format : formats::all_formats) {
    INFO(name_of(format));
    formats::portable_rounding().round({values.data(), 1, count, count}, rounded.data(), format);
    CHECK(std::ranges::none_of(rounded, [](float value) {
      return !std::isnan(value) && (std::bit_cast<std::uint32_t>(value) & 0xFFFFU) != 0;
    }));
  }
}

template <Format format>
void check_codes() {
  for (std::uint32_t code = 0; code < 256; ++code) {
    const float value = formats::code_values<format>[code];
    CHECK((std::isnan(value) || formats::code_of<format>(value) == code));
    CHECK((std::isnan(value) || std::isinf(value) || formats::round_one<format>(value) == value));
  }
  CHECK(formats::code_of<format>(NAN) == 0x7F);
}

TEST_CASE("a code's value has that code", "[formats]") {
  check_codes<Format::float8_e4m3>();
  check_codes<Format::float8_e5m2>();
  CHECK(formats::code_values<Format::float8_e4m3>[0x7E] == 448.0F);
  CHECK(std::isnan(formats::code_values<Format::float8_e4m3>[0x7F]));
  CHECK(formats::code_values<Format::float8_e5m2>[0xFC] == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(formats::code_values<Format::float8_e5m2>[0x7D]));
}

TEST_CASE("every bfloat16 tie goes to the even neighbour, and no NaN is lost", "[formats]") {
  for (std::uint32_t half = 0; half < 0x7F80U; ++half) {
    const auto above = [&](std::uint32_t lower) { return std::bit_cast<float>(half << 16 | lower); };
    CHECK(formats::bfloat16_of(above(0x7FFFU)) == half);
    CHECK(formats::bfloat16_of(above(0x8000U)) == half + half % 2);
    CHECK(formats::bfloat16_of(above(0x8001U)) == half + 1);
    CHECK(formats::rounded_to_bfloat16(above(0x8000U)) ==
          formats::float_of_bfloat16(formats::bfloat16_of(above(0x8000U))));
  }
  for (const std::uint32_t bits : {0x7F800001U, 0x7FFFFFFFU, 0xFF80FFFFU, 0xFFFFFFFFU}) {
    const float nan = std::bit_cast<float>(bits);
    CHECK(std::isnan(formats::float_of_bfloat16(formats::bfloat16_of(nan))));
    CHECK(std::isnan(formats::rounded_to_bfloat16(nan)));
  }
}

// Rows of 70 values that lie 96 apart: what is between them must stay as it is.
TEST_CASE("rows with gaps are rounded, encoded and compared as rows without", "[formats]") {
  constexpr std::int64_t rows = 5, length = 70, stride = 96;
  constexpr float untouched = 1.2345678F;
  std::vector<float> dense, gapped(rows * stride, untouched);
  for (std::int64_t i = 0; i < rows * length; ++i) {
    dense.push_back(std::ldexp(std::sin(static_cast<float>(i)), static_cast<int>(i % 23) - 11));
    gapped[static_cast<std::size_t>(i / length * stride + i % length)] = dense.back();
  }
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i / length * stride + i % length); };
  for (const auto& set : test::instruction_sets()) {
    const RoundingKernels* const kernels = set.rounding;
    for (const Format format : formats::all_formats) {
      INFO(name_of(format));
      std::vector<float> expected(dense.size()), found = gapped;
      const float largest = kernels->round({dense.data(), rows, length, length}, expected.data(), format);
      CHECK(kernels->round({gapped.data(), rows, length, stride}, found.data(), format) == largest);
      for (std::int64_t i = 0; i < rows * length; ++i) {
        REQUIRE(found[at(i)] == expected[static_cast<std::size_t>(i)]);
      }
      for (std::int64_t i = 0; i < rows * stride; ++i) {
        if (i % stride >= length) REQUIRE(found[static_cast<std::size_t>(i)] == untouched);
      }

      found = gapped;
      const auto sums = kernels->round_and_compare({found.data(), rows, length, stride}, gapped.data(), format);
      std::vector<float> values = dense;
      const auto known = kernels->round_and_compare({values.data(), rows, length, length}, dense.data(), format);
      CHECK(std::abs(sums.squares - known.squares) <= 1e-6 * known.squares);
      CHECK(std::abs(sums.power - known.power) <= 1e-6 * known.power);
      CHECK(sums.largest == known.largest);
      CHECK(values == expected);

      if (format == Format::float32) continue;
      const auto bytes = static_cast<std::size_t>(formats::code_bits(format) / 8);
      std::vector<std::uint8_t> codes(dense.size() * bytes), apart(gapped.size() * bytes, 0xA5);
      kernels->encode({dense.data(), rows, length, length}, Format::float32, codes.data(), format);
      kernels->encode({gapped.data(), rows, length, stride}, Format::float32, apart.data(), format);
      for (std::int64_t i = 0; i < rows * length * static_cast<std::int64_t>(bytes); ++i) {
        const auto byte = static_cast<std::size_t>(i) % bytes, place = static_cast<std::size_t>(i) / bytes;
        REQUIRE(apart[at(static_cast<std::int64_t>(place)) * bytes + byte] == codes[static_cast<std::size_t>(i)]);
      }
      CHECK(apart.back() == 0xA5);
    }
  }
}

}  // namespace
}  // namespace pi0
