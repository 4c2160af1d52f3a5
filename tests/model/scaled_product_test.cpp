// Products of scaled formats on every instruction set, against the reference: dequantized operands, exact sums.
#include "model/backends/cpu/coded_panels.h"
#include "support/catch.h"

namespace pi0 {
namespace {

using formats::NumberFormat;
using model::Lane;

const std::vector<std::string> scaled_names = {"mxfp8_e4m3",
                                               "mxfp8_e5m2",
                                               "mxfp6_e2m3",
                                               "mxfp6_e3m2",
                                               "mxfp4",
                                               "mxint8",
                                               "nvfp4",
                                               "nvfp4:one_level",
                                               "float8_e4m3:tensor",
                                               "float8_e4m3:row",
                                               "float8_e5m2:row",
                                               "float8_e4m3:group128",
                                               "float8_e4m3:tile128",
                                               "float8_e4m3:tensor:po2",
                                               "int8:tensor",
                                               "int8:row",
                                               "int8:row:asymmetric",
                                               "int4:row",
                                               "int4:group128",
                                               "int4:group32:asymmetric",
                                               "int4:group16",
                                               "int3:group64",
                                               "int6:row",
                                               "float4_e2m1",
                                               "float6_e3m2"};

at::Tensor heavy_tailed(at::IntArrayRef sizes) { return at::randn(sizes) * at::exp(at::randn(sizes)); }

at::Tensor product(const model::GemmKernels& kernels, const model::PackedInput& x, const model::PackedWeight& weight) {
  at::Tensor result = at::empty({x.rows, weight.out}, at::kFloat);
  model::multiply(kernels, {{x, weight}}, nullptr, result);
  return result;
}

// 8 eps of the summed magnitudes: of heavy-tailed operands a few terms decide, so that errors of float32's sums even
// out less than those of gemm_test. Scales outside the sum round once more per sum instead of once per value.
void check_close(const at::Tensor& found, const at::Tensor& x, const at::Tensor& weight) {
  const at::Tensor wide_x = x.to(at::kDouble), wide = weight.to(at::kDouble);
  const at::Tensor exact = at::linear(wide_x, wide);
  const at::Tensor allowed = at::linear(wide_x.abs(), wide.abs()) * (8 * 1.1920929e-7) + 1e-30;
  const at::Tensor excess = ((found - exact).abs() / allowed).max();
  CHECK(excess.item<double>() <= 1);  // NaN fails
}

TEST_CASE("products of scaled formats equal the reference within float32's sums", "[model][gemm][scaled]") {
  at::manual_seed(5);
  const std::vector<std::pair<std::string, std::string>> operands = [] {
    std::vector<std::pair<std::string, std::string>> pairs;
    for (const std::string& name : scaled_names) {
      pairs.insert(pairs.end(), {{name, name}, {"bfloat16", name}, {name, "bfloat16"}});
    }
    pairs.insert(pairs.end(), {{"int8:row", "int4:group128"}, {"int8:group32", "nvfp4"}, {"nvfp4", "int4:group64"}});
    return pairs;
  }();
  for (const auto& [input, weight_name] : operands) {
    const NumberFormat of_input = formats::parse_number_format(input);
    const NumberFormat of_weight = formats::parse_number_format(weight_name);
    for (const auto& [rows, in, out] : {std::tuple{3, 64, 32}, {70, 300, 45}, {9, 2177, 33}}) {
      const at::Tensor x = heavy_tailed({2, rows, in}).to(at::kBFloat16);
      const at::Tensor weight = heavy_tailed({out, in}).to(at::kBFloat16);
      const at::Tensor rounded = model::round_activations(x.to(at::kFloat), of_input).values.view({-1, in});
      const bool is_coded = !plain_cast(of_weight);
      const model::CodedWeight coded = is_coded ? model::encode(weight, of_weight) : model::CodedWeight{};
      const at::Tensor values = is_coded ? coded.values() : weight.to(at::kFloat);
      const model::PackedWeight packed = is_coded ? pack_coded(coded) : model::pack_weight(weight);
      for (const model::InstructionSet set : model::instruction_sets()) {
        const model::GemmKernels& kernels = model::gemm_kernels(set);
        for (const Lane lane : {Lane::float32, Lane::bfloat16_pair}) {
          if (lane == Lane::bfloat16_pair && !kernels.has_pairs) continue;
          INFO(name_of(set) << " pairs " << (lane == Lane::bfloat16_pair) << ", " << input << " x " << weight_name
                            << ", " << rows << " x " << in << " x " << out);
          const model::PackedInput packed_x = plain_cast(of_input) ? model::pack_input(kernels, x, lane, {})
                                                                   : pack_scaled_input(kernels, x, lane, of_input);
          check_close(product(kernels, packed_x, packed), rounded, values);
        }
      }
    }
  }
}

// One-hot inputs give back the weight: with lanes of float32 in all bits.
TEST_CASE("panels of a scaled weight hold its values", "[model][gemm][scaled]") {
  at::manual_seed(6);
  for (const std::string& name : scaled_names) {
    const NumberFormat format = formats::parse_number_format(name);
    const model::CodedWeight coded = model::encode(heavy_tailed({37, 131}), format);
    const model::PackedWeight packed = pack_coded(coded);
    for (const model::InstructionSet set : model::instruction_sets()) {
      INFO(name_of(set) << " " << name);
      const model::GemmKernels& kernels = model::gemm_kernels(set);
      const model::PackedInput eye = model::pack_input(kernels, at::eye(131), Lane::float32, {});
      CHECK(at::equal(product(kernels, eye, packed).t(), coded.values()));
    }
  }
}

}  // namespace
}  // namespace pi0
