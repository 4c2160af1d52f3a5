// Accumulators by themselves: names, operands, and sums that show each one's rules. Goldens are in ordered_linear_test.
#include "quant/formats/accumulator.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "quant/formats/rounding_value.h"
#include "support/catch.h"

namespace pi0 {
namespace {

using formats::Accumulator;
using formats::AccumulatorKind;
using formats::parse_accumulator;

float sum(const char* accumulator, const std::vector<float>& x, const std::vector<float>& weight, float first = 0) {
  return formats::ordered_sum(parse_accumulator(accumulator), x.data(), weight.data(),
                              static_cast<std::int64_t>(x.size()), first);
}

TEST_CASE("an accumulator's name finds it", "[formats]") {
  for (const char* name : {"float32", "bfloat16:1", "bfloat16:4096", "float16:32", "ipt", "systolic"}) {
    CHECK(name_of(parse_accumulator(name)) == name);
  }
  CHECK(parse_accumulator("float16:32") == Accumulator{AccumulatorKind::float16, 32});
  CHECK(file_name_of(parse_accumulator("bfloat16:8")) == "bfloat16-8");
  CHECK(encodes_operands(parse_accumulator("ipt")));
  CHECK_FALSE(encodes_operands(parse_accumulator("bfloat16:8")));
}

TEST_CASE("a wrong accumulator is answered with what it may be", "[formats]") {
  const auto message = [](const char* name) -> std::string {
    try {
      parse_accumulator(name);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  };
  CHECK(message("bf16") == "accumulator 'bf16': is unknown; known: float32, bfloat16:N, float16:N, ipt, systolic");
  CHECK(message("systolic:4") == "accumulator 'systolic:4': nothing may follow systolic");
  for (const char* name : {"bfloat16", "bfloat16:", "bfloat16:0", "bfloat16:4097", "bfloat16:-1", "bfloat16:01",
                           "bfloat16:1 ", "bfloat16:1:2", "bfloat16:99999999999"}) {
    CHECK(message(name) == "accumulator '" + std::string(name) +
                               "': needs the number of products from one rounding to the next, 1 to 4096, as in "
                               "bfloat16:32");
  }
  CHECK_THROWS_AS(sum("float32", {1}, {1}), std::invalid_argument);
}

// The rule in words, in float64: every bfloat16 value, and its neighbours in float32.
TEST_CASE("operands are encoded to three bits, half to even", "[formats]") {
  const auto expected = [](float value) {
    const double magnitude = std::abs(static_cast<double>(value));
    if (std::isnan(value) || magnitude < 0x1p-6) return 0.0;
    if (magnitude >= 496) return std::copysign(448.0, value);
    const double step = std::ldexp(1, std::ilogb(magnitude) - 3);
    return std::copysign(std::nearbyint(magnitude / step) * step, value);
  };
  std::size_t wrong = 0;
  for (std::uint32_t half = 0; half < 0x10000U; ++half) {
    for (const std::uint32_t bits : {half << 16, half << 16 | 1U, (half << 16) - 1U}) {
      const float value = std::bit_cast<float>(bits), found = formats::encoded_operand(value);
      const auto right = static_cast<float>(expected(value));
      wrong += formats::bits_of(found) == formats::bits_of(right) ? 0 : 1;
      wrong += formats::rounded_to_bfloat16(found) == found ? 0 : 1;
    }
  }
  CHECK(wrong == 0);
  CHECK(formats::encoded_operand(470) == 480);
  CHECK_FALSE(std::signbit(formats::encoded_operand(-0.0F)));
}

TEST_CASE("bfloat16 and float16 sums are rounded after every N products and at the end", "[formats]") {
  // 256 + 1 is half way between two bfloat16 values, 256 + 2 is one.
  CHECK(sum("bfloat16:1", {256, 1, 1}, {1, 1, 1}) == 256);
  CHECK(sum("bfloat16:2", {256, 1, 1}, {1, 1, 1}) == 256);
  CHECK(sum("bfloat16:3", {256, 1, 1}, {1, 1, 1}) == 258);
  CHECK(sum("bfloat16:4096", {256, 1, 1, 1}, {1, 1, 1, 1}) == 260);  // 259 is half way between 258 and 260
  CHECK(sum("float16:2", {2048, 1, 1}, {1, 1, 1}) == 2048);
  CHECK(sum("float16:3", {2048, 1, 1}, {1, 1, 1}) == 2050);
  CHECK(sum("float16:1", {65504, 16}, {1, 1}) == std::numeric_limits<float>::infinity());
  CHECK(sum("float16:1", {0x1p-24F}, {1}) == 0x1p-24F);
  CHECK(sum("float16:8", {INFINITY}, {1}) == INFINITY);
  CHECK(std::isnan(sum("bfloat16:8", {INFINITY, -INFINITY}, {1, 1})));
  // The product is exact: rounded to float32 first, the sum would be 0.
  const float a = 1 + 0x1p-12F, product = 1 + 0x1p-11F;
  CHECK(sum("bfloat16:2", {product, a}, {-1, a}) == 0x1p-24F);
}

TEST_CASE("systolic sums are rounded after every product, ipt's after 32", "[formats]") {
  const std::vector<float> x = {256, 1, 1}, ones = {1, 1, 1};
  CHECK(sum("systolic", x, ones) == 256);
  CHECK(sum("ipt", x, ones) == 258);
  std::vector<float> many(33, 1);
  many[0] = 256;
  CHECK(sum("ipt", many, std::vector<float>(33, 1)) == 288);  // 287 to 288, then 289 to 288
  // The bias comes first.
  CHECK(sum("systolic", {1, -256}, {1, 1}, 256) == 0);
  CHECK(sum("ipt", {1, -256}, {1, 1}, 256) == 1);
  // 480 * 480 has the exponent 17: bits below 2^(17 + 7 - 29) are cut off, towards zero.
  CHECK(sum("ipt", {480, 0.125F, -480}, {480, 0.125F, 480}) == 0);
  CHECK(sum("ipt", {480, 0.3125F, -480}, {480, -0.25F, 480}) == -0x1p-5F * 2);
  CHECK(formats::bits_of(sum("ipt", {-1, 1}, {1, 1})) == 0);
  CHECK(formats::bits_of(sum("systolic", {0, -0.0F}, {-1, 1})) == 0);
}

}  // namespace
}  // namespace pi0
