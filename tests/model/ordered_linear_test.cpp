// Products whose sums are accumulated in order: the reference against pi0-quant's functional models of hardware, and
// the kernels of every instruction set against the reference, in all bits.
#include "model/ordered_linear.h"

#include "model/backends/cpu/coded_panels.h"
#include "model/backends/cpu/fast_ordered_linear.h"
#include "model/safetensors.h"
#include "support/catch.h"
#include "support/tensors.h"

namespace pi0 {
namespace {

using formats::Accumulator;
using formats::parse_accumulator;

TEST_CASE("ipt and systolic equal pi0-quant's models in all bits", "[model][gemm][ordered]") {
  std::int64_t checked = 0;
  for (const char* name : {"matmul_goldens", "matmul_goldens_11", "hard_products"}) {
    const model::SafetensorsFile goldens(std::string("goldens/formats/") + name + ".safetensors");
    for (const auto& [of_x, entry] : goldens.entries()) {
      if (of_x[0] != 'x') continue;
      const std::string of_case = of_x.substr(1);
      INFO(name << of_case);
      const at::Tensor x = goldens.tensor(of_x), weight = goldens.tensor("w" + of_case);
      const at::Tensor bias = goldens.entries().contains("b" + of_case) ? goldens.tensor("b" + of_case) : at::Tensor{};
      for (const auto& [accumulator, golden] : {std::pair{"ipt", "tree"}, {"systolic", "systolic"}}) {
        const at::Tensor expected = goldens.tensor(golden + of_case);
        CHECK(test::same(model::ordered_linear(parse_accumulator(accumulator), x, weight, bias), expected));
        for (const model::InstructionSet set : model::instruction_sets()) {
          INFO(accumulator << " " << name_of(set));
          CHECK(test::same(
              model::fast_ordered_linear(model::gemm_kernels(set), parse_accumulator(accumulator), x, weight, bias),
              expected));
        }
        checked += expected.numel();
      }
    }
  }
  CHECK(checked == 2 * (2 * 195 + 13 * 35));
}

enum class Values { moderate, wide, not_finite };

at::Tensor values(Values kind, at::IntArrayRef sizes) {
  const at::Tensor normal = at::randn(sizes);
  if (kind == Values::moderate) return normal;
  const at::Tensor wide = normal * at::exp2(at::randint(-70, 64, sizes).to(at::kFloat));
  if (kind == Values::wide) return at::where(at::rand(sizes) < 0.1, at::zeros(sizes) * normal, wide);
  const at::Tensor odd = at::tensor({INFINITY, -INFINITY, NAN}).index_select(0, at::randint(3, {wide.numel()}));
  return at::where(at::rand(sizes) < 0.5 / static_cast<double>(sizes.back()), odd.view(sizes), wide);
}

// Of bfloat16 values, as of float32 ones whose products are not exact; some with a bias.
TEST_CASE("kernels sum in order as the reference does, in all bits", "[model][gemm][ordered]") {
  at::manual_seed(8);
  std::int64_t checked = 0;
  for (const char* name : {"bfloat16:1", "bfloat16:3", "bfloat16:32", "bfloat16:4096", "float16:1", "float16:3",
                           "float16:32", "float16:4096", "ipt", "systolic"}) {
    const Accumulator accumulator = parse_accumulator(name);
    for (const auto& [rows, in, out] :
         {std::tuple{1, 1, 1}, {3, 31, 32}, {50, 33, 70}, {50, 1000, 31}, {3, 4100, 70}}) {
      for (const Values kind : {Values::moderate, Values::wide, Values::not_finite}) {
        const bool is_rounded = checked % 2 == 0;
        const auto operand = [&](at::IntArrayRef sizes) {
          const at::Tensor all = values(kind, sizes);
          return is_rounded ? all.to(at::kBFloat16).to(at::kFloat) : all;
        };
        const at::Tensor x = operand({rows, in}), weight = operand({out, in});
        const at::Tensor bias = rows == 3 ? at::Tensor{} : operand({out});
        const at::Tensor expected = model::ordered_linear(accumulator, x, weight, bias);
        for (const model::InstructionSet set : model::instruction_sets()) {
          INFO(name << " " << name_of(set) << " " << rows << " x " << in << " x " << out << ", values "
                    << static_cast<int>(kind));
          CHECK(
              test::same(model::fast_ordered_linear(model::gemm_kernels(set), accumulator, x, weight, bias), expected));
          ++checked;
        }
      }
    }
  }
  CHECK(checked == 150 * static_cast<std::int64_t>(model::instruction_sets().size()));
}

// Scales are in the lanes, so that the operands' values are summed in order.
TEST_CASE("weights of scaled formats are summed in order by their values", "[model][gemm][ordered]") {
  at::manual_seed(9);
  const at::Tensor x = at::randn({9, 2177}), weight = at::randn({45, 2177});
  const Accumulator accumulator = parse_accumulator("bfloat16:32");
  for (const char* name : {"mxfp4", "nvfp4", "int8:row", "int4:group128:asymmetric", "float8_e4m3:tile128"}) {
    const model::CodedWeight coded = model::encode(weight, model::parse_number_format(name));
    const at::Tensor expected = model::ordered_linear(accumulator, x, coded.values(), {});
    const model::PackedWeight packed = pack_coded(coded);
    for (const model::InstructionSet set : model::instruction_sets()) {
      INFO(name << " " << name_of(set));
      const model::GemmKernels& kernels = model::gemm_kernels(set);
      const model::PackedInput input = pack_input(kernels, x, model::Lane::float32, {});
      at::Tensor found = at::empty({9, 45});
      model::multiply(kernels, {{input, packed, accumulator}}, nullptr, found);
      CHECK(test::same(found, expected));
    }
  }
}

TEST_CASE("ordered_linear refuses what it cannot multiply", "[model][gemm][ordered]") {
  const Accumulator accumulator = parse_accumulator("systolic");
  CHECK_THROWS_AS(model::ordered_linear(accumulator, at::ones({2, 3}), at::ones({4, 5}), {}), c10::Error);
  CHECK_THROWS_AS(model::ordered_linear(accumulator, at::ones({2, 3}), at::ones({4, 3}, at::kHalf), {}), c10::Error);
  CHECK_THROWS_AS(model::ordered_linear(accumulator, at::ones({2, 3}), at::ones({4, 3}), at::ones({3})), c10::Error);
}

}  // namespace
}  // namespace pi0
