#include "model/rounding.h"

#include <torch/version.h>

#include "quant/format.h"
#include "support/catch.h"
#include "support/tensors.h"

namespace pi0 {
namespace {

using quant::Format;
using test::same;

// What libtorch 2.13 casts to on a CPU, written down apart from the code under test. Earlier ones do not saturate.
at::Tensor by_libtorch(const at::Tensor& values, Format format) {
  constexpr bool saturates = TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR >= 213;
  if (format == Format::float8_e4m3 && !saturates) {
    return values.clamp(-448, 448).to(at::kFloat8_e4m3fn).to(at::kFloat);
  }
  switch (format) {
    case Format::float16:
      return values.to(at::kHalf).to(at::kFloat);
    case Format::bfloat16:
      return values.to(at::kBFloat16).to(at::kFloat);
    case Format::float8_e4m3:
      return values.to(at::kFloat8_e4m3fn).to(at::kFloat);
    case Format::float8_e5m2:
      return values.to(at::kFloat8_e5m2).to(at::kFloat);
    default:  // float32
      return values;
  }
}

void check_all_formats(const at::Tensor& values) {
  for (const Format format : quant::all_formats) {
    INFO(quant::name_of(format));
    const at::Tensor expected = by_libtorch(values, format);
    CHECK(same(model::round_to(values, format).values, expected));
    CHECK(same(model::round_by_casts(values, format), expected));
    const at::Tensor codes = model::to_codes(expected, format);
    CHECK(same(model::from_codes(codes), expected));
    CHECK(codes.element_size() == (format == Format::float32    ? 4
                                   : format == Format::float16  ? 2
                                   : format == Format::bfloat16 ? 2
                                                                : 1));
  }
}

TEST_CASE("every float16 and bfloat16 pattern is rounded as libtorch casts", "[quant][rounding]") {
  const at::Tensor patterns = at::arange(-32768, 32768, at::kInt).to(at::kShort);
  check_all_formats(patterns.view(at::kHalf).to(at::kFloat));
  check_all_formats(patterns.view(at::kBFloat16).to(at::kFloat));
}

TEST_CASE("ten million random float32 patterns are rounded as libtorch casts", "[quant][rounding]") {
  check_all_formats(at::randint(-2147483648LL, 2147483648LL, {10'000'000}, at::kLong).to(at::kInt).view(at::kFloat));
}

TEST_CASE("ties, and their neighbours, are rounded as libtorch casts", "[quant][rounding]") {
  for (const Format format : quant::all_formats) {
    if (format == Format::float32) continue;
    // Halfway between neighbours on the grid: every value of the format, plus half a step.
    const at::Tensor halves = at::arange(-32768, 32768, at::kInt).to(at::kShort).view(at::kHalf).to(at::kFloat);
    const at::Tensor grid =
        std::get<0>(at::_unique(by_libtorch(halves, format).view(at::kInt))).view(at::kFloat);  // by bits: -0, too
    const at::Tensor scale = at::pow(2.0, at::arange(-30, 31, at::kFloat)).unsqueeze(1);
    const at::Tensor ties = (grid.unsqueeze(0) * scale * 1.5).flatten();
    const at::Tensor sums = (grid + by_libtorch(grid * 1.0625, format)) / 2;
    for (const at::Tensor& values : {ties, sums}) {
      const at::Tensor bits = values.view(at::kInt);
      check_all_formats(values);
      check_all_formats((bits + 1).view(at::kFloat));
      check_all_formats((bits - 1).view(at::kFloat));
    }
  }
}

TEST_CASE("e4m3 saturates, the others overflow to infinity, and both are noticed", "[quant][rounding]") {
  const float infinity = std::numeric_limits<float>::infinity();
  const auto one = [](float value, Format format) { return model::round_to(at::full({1}, value), format); };
  CHECK(one(1e6F, Format::float8_e4m3).values.item<float>() == 448.0F);
  CHECK(one(-infinity, Format::float8_e4m3).values.item<float>() == -448.0F);
  CHECK(one(1e6F, Format::float8_e5m2).values.item<float>() == infinity);
  CHECK(one(65520.0F, Format::float16).values.item<float>() == infinity);
  CHECK(one(65519.0F, Format::float16).values.item<float>() == 65504.0F);
  CHECK(std::isnan(one(NAN, Format::float8_e4m3).values.item<float>()));

  CHECK(one(464.0F, Format::float8_e4m3).overflowed);
  CHECK_FALSE(one(463.0F, Format::float8_e4m3).overflowed);
  CHECK(one(65520.0F, Format::float16).overflowed);
  CHECK_FALSE(one(65519.0F, Format::float16).overflowed);
  CHECK_FALSE(one(NAN, Format::float16).overflowed);
  CHECK_FALSE(one(infinity, Format::float16).overflowed);
}

TEST_CASE("rounding ties to even by example", "[quant][rounding]") {
  const at::Tensor values = at::tensor({17.0F, 19.0F});  // e4m3's grid step is 2 in [16, 32)
  CHECK(at::equal(model::round_to(values, Format::float8_e4m3).values, at::tensor({16.0F, 20.0F})));
}

TEST_CASE("a parameter's codes are those of its rounded values, over slices' borders", "[quant][rounding]") {
  const at::Tensor parameter = (at::randn({1100, 1003}) * 30).to(at::kBFloat16);
  const model::Rounded codes = model::round_to_codes(parameter, Format::float8_e4m3);
  CHECK(codes.values.sizes() == parameter.sizes());
  CHECK(codes.values.element_size() == 1);
  CHECK_FALSE(codes.overflowed);
  CHECK(at::equal(model::from_codes(codes.values), by_libtorch(parameter.to(at::kFloat), Format::float8_e4m3)));
  CHECK(model::round_to_codes(parameter * 100, Format::float8_e4m3).overflowed);
}

TEST_CASE("a packed weight's codes are those of its rows, padding is zero", "[quant][rounding]") {
  for (const auto& [out, in] : {std::pair{1, 1}, {32, 64}, {37, 33}, {70, 130}, {33, 1003}}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor weight = (at::randn({out, in}) * 30).to(dtype);
      const model::PackedWeight packed = model::pack_weight(weight);
      for (const Format format : quant::all_formats) {
        if (format == Format::float32) continue;
        INFO(quant::name_of(format) << " " << dtype << " " << out << " " << in);
        const at::Tensor codes = model::to_codes(by_libtorch(weight.to(at::kFloat), format), format);
        const model::PackedWeight expected = model::pack_weight(codes);
        for (const model::InstructionSet set : model::instruction_sets()) {
          const model::RoundedWeight found = model::round_to_codes(model::rounding_kernels(set), packed, format);
          CHECK(found.weight.format() == format);
          CHECK(at::equal(found.weight.panels.view(at::kByte), expected.panels.view(at::kByte)));
          CHECK_FALSE(found.overflowed);
        }
      }
    }
  }
  const model::PackedWeight large = model::pack_weight(at::full({3, 5}, 1000.0F));
  CHECK(model::round_to_codes(model::best_rounding_kernels(), large, Format::float8_e4m3).overflowed);
}

TEST_CASE("tensors of any strides keep their values' places", "[quant][rounding]") {
  const at::Tensor values = at::randn({6, 8, 10});
  for (const at::Tensor& view : {values.transpose(0, 1), values.transpose(0, 2), values.slice(1, 1, 7, 2), values[3],
                                 values.flatten().unsqueeze(1), values[0][0][0], values.narrow(2, 0, 0)}) {
    const at::Tensor rounded = model::round_to(view, Format::float8_e5m2).values;
    CHECK(at::equal(rounded, by_libtorch(view, Format::float8_e5m2)));
    CHECK(rounded.strides() == at::empty_like(view).strides());
  }
  CHECK_THROWS(model::round_to(values.to(at::kDouble), Format::float16));
}

TEST_CASE("an unknown format is answered with the known ones", "[quant]") {
  CHECK(quant::parse_format("float8_e4m3") == quant::NumberFormat{Format::float8_e4m3});
  CHECK_THROWS_WITH(quant::parse_format("fp8"), contains_text("fp8") && contains_text("float8_e5m2"));
}

}  // namespace
}  // namespace pi0
