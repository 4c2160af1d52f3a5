#include "model/backends/cpu/gemm.h"

#include <sys/mman.h>

#include <vector>

#include "model/backends/cpu/fast_layers.h"
#include "model/backends/cpu/fast_linear.h"
#include "support/catch.h"

namespace pi0 {
namespace {

using model::InstructionSet;
using model::Lane;

// Every code of 8 bits but the NaNs, or random values, as a weight of that dtype.
at::Tensor weight_of(at::ScalarType dtype, std::int64_t out, std::int64_t in) { return at::randn({out, in}).to(dtype); }

// The widest that float32 sums of `terms` may lie from the exact one: 4 eps of the summed magnitudes.
at::Tensor bound(const at::Tensor& x, const at::Tensor& weight) {
  return at::linear(x.abs(), weight.abs()) * (4 * 1.1920929e-7) + 1e-30;
}

TEST_CASE("fast_linear equals the exact product within float32's sums", "[model][gemm]") {
  at::manual_seed(3);
  for (const InstructionSet set : model::instruction_sets()) {
    const model::GemmKernels& kernels = model::gemm_kernels(set);
    for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16, at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
      for (const auto& [rows, in, out] : {std::tuple{1, 7, 5}, {15, 64, 96}, {50, 2500, 33}, {101, 130, 256}}) {
        const at::Tensor x = at::randn({1, rows, in}), weight = weight_of(dtype, out, in);
        const at::Tensor bias = at::randn({out});
        INFO(name_of(set) << " " << dtype << " " << rows << " " << in << " " << out);
        const at::Tensor wide = weight.to(at::kFloat).to(at::kDouble);
        const at::Tensor found = model::fast_linear(kernels, x, {model::pack_weight(weight), bias});
        REQUIRE(found.sizes() == at::IntArrayRef{1, rows, out});
        const at::Tensor exact = at::linear(x.to(at::kDouble), wide, bias.to(at::kDouble));
        CHECK(((found - exact).abs() <= bound(x.to(at::kDouble), wide) + bias.abs() * 1e-6).all().item<bool>());

        const at::Tensor half = x.to(at::kBFloat16);  // as pairs, where there are pairs
        const at::Tensor rounded = model::fast_linear(kernels, half, {model::pack_weight(weight)});
        REQUIRE(rounded.scalar_type() == at::kBFloat16);
        const at::Tensor of_half = at::linear(half.to(at::kDouble), wide);
        CHECK(((rounded.to(at::kDouble) - of_half).abs() <= of_half.abs() * 0.004 + bound(half.to(at::kDouble), wide))
                  .all()
                  .item<bool>());
      }
    }
  }
}

// The codes of one panel through a one-hot input: what comes out is what they were widened to.
TEST_CASE("a row's sums do not depend on the rows beside it", "[model][gemm]") {
  at::manual_seed(4);
  const at::Tensor x = at::randn({1, 101, 2500}).to(at::kBFloat16);
  for (const InstructionSet set : model::instruction_sets()) {
    const model::GemmKernels& kernels = model::gemm_kernels(set);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kFloat8_e4m3fn}) {
      const model::PackedWeight weight = model::pack_weight(weight_of(dtype, 96, 2500));
      const at::Tensor all = model::fast_linear(kernels, x, {weight});
      for (const int rows : {1, 15, 50}) {
        INFO(name_of(set) << " " << dtype << " " << rows);
        const at::Tensor few = model::fast_linear(kernels, x.narrow(1, 0, rows), {weight});
        REQUIRE(at::equal(few, all.narrow(1, 0, rows)));
      }
    }
  }
}

// A copy that ends where memory begins that nothing may touch.
at::Tensor before_a_gap(const at::Tensor& values) {
  constexpr std::size_t page = 4096;
  const std::size_t bytes = values.nbytes(), size = (bytes + page - 1) / page * page;
  auto* const memory =
      static_cast<std::byte*>(::mmap(nullptr, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(memory != MAP_FAILED);
  REQUIRE(::mprotect(memory + size, page, PROT_NONE) == 0);
  at::Tensor copy = at::from_blob(
      memory + size - bytes, values.sizes(), [=](void*) { ::munmap(memory, size + page); }, values.options());
  return copy.copy_(values);
}

// Whole numbers, whose sums are exact in any order.
at::Tensor whole_numbers(at::IntArrayRef shape) { return at::randint(-8, 9, shape, at::kFloat); }

void check_run(const model::GemmKernels& kernels, Lane lane, std::int64_t rows, std::int64_t steps, bool go_on) {
  constexpr std::int64_t panels = 3, width = model::panel_width, rows_apart = 1;
  const std::int64_t values = lane == Lane::float32 ? 1 : 2;
  const auto dtype = lane == Lane::float32 ? at::kFloat : at::kBFloat16;
  const at::Tensor x = whole_numbers({rows, steps * values}), weight = whole_numbers({panels, width, steps * values});
  const at::Tensor before = whole_numbers({panels, rows + rows_apart, width});
  at::Tensor expected = before.clone();
  const at::Tensor products = at::matmul(x, weight.transpose(1, 2));
  expected.narrow(1, 0, rows).mul_(go_on ? 1 : 0).add_(products);

  const at::Tensor guarded_x = before_a_gap(x.to(dtype));
  std::vector<at::Tensor> guarded_lanes;
  std::vector<const std::uint32_t*> lanes;
  for (const at::Tensor& panel : weight.unbind()) {
    guarded_lanes.push_back(before_a_gap(panel.view({width, steps, values}).transpose(0, 1).to(dtype)));
    lanes.push_back(static_cast<const std::uint32_t*>(guarded_lanes.back().const_data_ptr()));
  }
  const at::Tensor sums = before_a_gap(before.flatten(0, 1).narrow(0, 0, panels * (rows + rows_apart) - rows_apart));
  kernels.multiply(lane, {.x = static_cast<const std::uint32_t*>(guarded_x.const_data_ptr()),
                          .stride = steps,
                          .rows = rows,
                          .steps = steps,
                          .lanes = lanes.data(),
                          .panels = panels,
                          .sums = sums.mutable_data_ptr<float>(),
                          .sums_stride = (rows + rows_apart) * width,
                          .go_on = go_on});
  CHECK(at::equal(sums, expected.flatten(0, 1).narrow(0, 0, sums.size(0))));
}

TEST_CASE("a run of any rows and steps is exact and touches its own memory only", "[model][gemm]") {
  for (const InstructionSet set : model::instruction_sets()) {
    const model::GemmKernels& kernels = model::gemm_kernels(set);
    for (const Lane lane : {Lane::float32, Lane::bfloat16_pair}) {
      if (lane == Lane::bfloat16_pair && !kernels.has_pairs) continue;
      for (const int rows : {1, 2, 11, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64}) {
        for (const int steps : {1, 2, 15, 16, 17, 31, 32, 100, 128}) {
          INFO(name_of(set) << " pairs " << (lane == Lane::bfloat16_pair) << " " << rows << " " << steps);
          for (const bool go_on : {false, true}) check_run(kernels, lane, rows, steps, go_on);
        }
      }
    }
  }
}

TEST_CASE("gated linears have the bits of linears and GELU", "[model][gemm]") {
  at::manual_seed(5);
  for (const InstructionSet set : model::instruction_sets()) {
    const model::GemmKernels& kernels = model::gemm_kernels(set);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      for (const auto& [rows, in, out] : {std::tuple{15, 64, 96}, {70, 130, 300}}) {
        INFO(name_of(set) << " " << dtype << " " << rows);
        const at::Tensor x = at::randn({2, rows, in}).to(dtype);
        const auto linear = [&, in = in, out = out] {
          return model::FastLinear{model::pack_weight(at::randn({out, in}).to(dtype)), at::randn({out})};
        };
        const model::FastLinear gate = linear(), up = linear();
        const std::vector<at::Tensor> both = model::fast_linears(kernels, x, {gate, up});
        CHECK(at::equal(both[0], model::fast_linear(kernels, x, gate)));
        CHECK(at::equal(both[1], model::fast_linear(kernels, x, up)));
        const at::Tensor found = model::fast_gated_linears(kernels, x, gate, up);
        REQUIRE(found.sizes() == both[0].sizes());
        CHECK(at::equal(found, model::fast_gelu(kernels, both[0], both[1])));
      }
    }
  }
}

TEST_CASE("an input is copied only if its rows do not lie as lanes", "[model][gemm]") {
  at::manual_seed(6);
  for (const InstructionSet set : model::instruction_sets()) {
    const model::GemmKernels& kernels = model::gemm_kernels(set);
    for (const auto& [dtype, lane] : {std::pair{at::kFloat, Lane::float32}, {at::kBFloat16, Lane::bfloat16_pair}}) {
      if (lane == Lane::bfloat16_pair && !kernels.has_pairs) continue;
      INFO(name_of(set) << " " << dtype);
      const model::PackedWeight weight = model::pack_weight(at::randn({40, 256}).to(dtype));
      const at::Tensor x = at::randn({2, 30, 256}).to(dtype), padded = model::padded_result(x, 256).copy_(x);
      const auto is_copied = [&, lane = lane](const at::Tensor& input) {
        return model::pack_input(kernels, input, lane, {}).lanes.const_data_ptr() != input.const_data_ptr();
      };
      CHECK_FALSE(is_copied(padded));
      CHECK(is_copied(x));                         // rows in the same cache sets
      CHECK(is_copied(padded.narrow(2, 1, 200)));  // rows that begin within a cache line
      CHECK(is_copied(padded.narrow(2, 0, 255)));  // an odd number of inputs
      CHECK(is_copied(padded.transpose(0, 1)));    // rows that are not evenly spaced
      CHECK(model::pack_input(kernels, padded, lane, [](float*, std::int64_t) {}).lanes.const_data_ptr() !=
            padded.const_data_ptr());
      CHECK(at::equal(model::fast_linear(kernels, padded, {weight}), model::fast_linear(kernels, x, {weight})));
      const at::Tensor part = padded.narrow(1, 0, 15).contiguous();
      CHECK(at::equal(model::fast_linear(kernels, padded.narrow(1, 0, 15), {weight}),
                      model::fast_linear(kernels, part, {weight})));
    }
  }
}

TEST_CASE("large panels begin at a huge page", "[model][gemm]") {
  constexpr std::int64_t page = 1 << 21;
  const at::Tensor panels = model::empty_panels({3, page / 2}, at::kByte);
  REQUIRE(reinterpret_cast<std::uintptr_t>(panels.data_ptr()) % page == 0);
  panels.fill_(1);
  REQUIRE(model::empty_panels({5}, at::kByte).sizes() == at::IntArrayRef{5});
}

TEST_CASE("every code is widened to its value", "[model][gemm]") {
  for (const InstructionSet set : model::instruction_sets()) {
    const model::GemmKernels& kernels = model::gemm_kernels(set);
    for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16, at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
      const bool is_byte = dtype == at::kFloat8_e4m3fn || dtype == at::kFloat8_e5m2;
      const at::Tensor codes = is_byte ? at::arange(0, 256, at::kInt).to(at::kByte).view(dtype)
                                       : at::arange(-32768, 32768, at::kInt).to(at::kShort).view(dtype);
      const at::Tensor values = codes.to(at::kFloat);
      const at::Tensor weight = codes.view({-1, 1});
      for (const Lane lane : {Lane::float32, Lane::bfloat16_pair}) {
        if (lane == Lane::bfloat16_pair && (!kernels.has_pairs || dtype == at::kHalf)) continue;
        INFO(name_of(set) << " " << dtype << " pairs " << (lane == Lane::bfloat16_pair));
        const model::PackedWeight packed = model::pack_weight(weight);
        const model::PackedInput one = model::pack_input(kernels, at::ones({1, 1}), lane, {});
        at::Tensor found = at::empty({1, weight.size(0)});
        model::multiply(kernels, {{one, packed}}, nullptr, found);
        // A pair's dot product takes subnormal operands and results for zero.
        const at::Tensor normal = (values.abs() >= 1.1754944e-38) | (values == 0);
        const at::Tensor same = (found[0] == values) | (found[0].isnan() & values.isnan());
        CHECK((same | ~normal).all().item<bool>());
        // The padding beside infinity must not have turned it to NaN.
        CHECK(at::equal(found[0].isinf(), values.isinf()));
      }
    }
  }
}

TEST_CASE("bfloat16 is narrowed to the nearest, ties to even", "[model][gemm]") {
  const at::Tensor values =
      at::randint(-2147483648LL, 2147483648LL, {1'000'000}, at::kLong).to(at::kInt).view(at::kFloat);
  for (const InstructionSet set : model::instruction_sets()) {
    at::Tensor found = at::empty(values.sizes(), at::kBFloat16);
    model::gemm_kernels(set).narrow_to_bfloat16(values.const_data_ptr<float>(),
                                                static_cast<std::uint16_t*>(found.mutable_data_ptr()), values.numel());
    const at::Tensor expected = values.to(at::kBFloat16);
    const at::Tensor same = (found.view(at::kShort) == expected.view(at::kShort)) | (found.isnan() & expected.isnan());
    CHECK(same.all().item<bool>());
  }
}

}  // namespace
}  // namespace pi0
