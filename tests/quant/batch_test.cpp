// A batch of requests observed sample by sample: the same statistics as one request after the other.
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "quant/attach.h"
#include "support/catch.h"
#include "support/devices.h"
#include "support/tensors.h"
#include "support/tiny_model.h"

namespace pi0 {
namespace {

using model::Precision;
using quant::Format;
using quant::SiteFormats;
using quant::StatsBook;

// Three requests that differ in pictures, a masked camera, prompt, state and noise.
test::GoldenCase three_requests() {
  test::GoldenCase golden = test::shortened(test::read_case("tiny_pi05"), /*cameras=*/2);
  at::manual_seed(3);
  const std::int64_t places = golden.inputs.tokens.size(1);
  golden.inputs.tokens = at::randint(1, golden.config.vocab_size, {3, places}, at::kLong);
  golden.inputs.token_mask = at::arange(places).unsqueeze(0) < at::tensor({9, 23, 17}).unsqueeze(1);
  for (at::Tensor& image : golden.inputs.images) {
    const at::Tensor pixels = at::randint(0, 256, {3, 224, 224, 3}, at::kByte);
    pixels[1].floor_divide_(4);
    image = model::image_to_input(pixels);
  }
  for (at::Tensor& mask : golden.inputs.image_masks) mask = at::ones({3}, at::kBool);
  golden.inputs.image_masks[1][1] = false;
  golden.inputs.state = at::rand({3, golden.config.action_dim}) * 2 - 1;
  golden.noise = at::randn({3, golden.config.action_horizon, golden.config.action_dim});
  return golden;
}

model::ModelInputs sample(const model::ModelInputs& in, std::int64_t i) {
  model::ModelInputs one;
  for (const at::Tensor& image : in.images) one.images.push_back(image.narrow(0, i, 1));
  for (const at::Tensor& mask : in.image_masks) one.image_masks.push_back(mask.narrow(0, i, 1));
  one.tokens = in.tokens.narrow(0, i, 1);
  one.token_mask = in.token_mask.narrow(0, i, 1);
  one.state = in.state.narrow(0, i, 1);
  return one;
}

// Relative difference.
double apart(std::optional<double> found, std::optional<double> expected) {
  if (found == expected) return 0;
  return found && expected ? std::abs(*found / *expected - 1) : 1;
}

void compare(const test::GoldenCase& golden, model::Pi0& pi0, const SiteFormats& formats) {
  constexpr std::int64_t steps = 1;
  StatsBook together, alone;
  const quant::PlanRequest request{quant::one_rule(formats), quant::AttentionScope::all, {}};
  const auto attach = [&](StatsBook& book) {
    return std::make_unique<quant::Attachment>(pi0.sites(), quant::make_plan(pi0.sites(), request), &book,
                                               [](const std::string&) {});
  };
  std::vector<at::Tensor> singles;
  {
    const auto attachment = attach(alone);
    for (std::int64_t i = 0; i < 3; ++i) {
      singles.push_back(pi0.sample_actions(sample(golden.inputs, i), golden.noise.narrow(0, i, 1), steps));
      alone.finish_request(StatsBook::Measured::yes);
    }
  }
  const auto attachment = attach(together);
  attachment->observe_samples_apart(true);
  const at::Tensor batch = pi0.sample_actions(golden.inputs, golden.noise, steps);
  together.finish_batch({true, true, true}, StatsBook::Measured::yes);

  // Where a batch's sums differ in their last bits, as they may on another CPU, roundings go the other
  // way here and there.
  const bool same_bits = at::equal(batch, at::cat(singles));
  CHECK(test::relative_rms(batch, at::cat(singles)) <= 2e-2);
  const quant::StatsSnapshot found = together.snapshot(), expected = alone.snapshot();
  CHECK(found.requests == 3);
  CHECK(found.measured == 3);
  for (std::size_t i = 0; i < found.sites.size(); ++i) {
    const quant::ErrorStats &mine = found.sites[i].errors, &theirs = expected.sites[i].errors;
    INFO(found.sites[i].layer);
    CHECK(mine.call_count() == theirs.call_count());
    CHECK(mine.nonfinite() == theirs.nonfinite());
    CHECK(apart(mine.rmse(), theirs.rmse()) <= (same_bits ? 1e-5 : 1e-2));
    CHECK(apart(mine.reference_rms(), theirs.reference_rms()) <= (same_bits ? 1e-5 : 1e-2));
    if (theirs.mse_std()) {
      CHECK(std::abs(*mine.mse_std() - *theirs.mse_std()) <= (same_bits ? 1e-5 : 1e-1) * *theirs.mse());
    }
  }

  attachment->measure(false);
  CHECK(at::equal(pi0.sample_actions(golden.inputs, golden.noise, steps), batch));
  together.finish_batch({true, true, true}, StatsBook::Measured::no);
  CHECK(together.snapshot().requests == 6);
  CHECK(together.snapshot().sites[0].errors.call_count() == found.sites[0].errors.call_count());
}

TEST_CASE("a batch observed sample by sample has the statistics of its requests one by one", "[quant][batch]") {
  const test::GoldenCase golden = three_requests();
  SECTION("reference") {
    const auto pi0 = test::load_case(golden, Precision::bfloat16);
    compare(golden, *pi0, {Format::float8_e4m3, Format::float16});
  }
  SECTION("a device's hooks, one after the other") {
    const auto pi0 = test::load_case(golden, Precision::bfloat16, test::like_gpu());
    compare(golden, *pi0, {Format::float8_e4m3, Format::float16});
  }
  SECTION("fast") {
    const auto pi0 = test::load_case(golden, Precision::bfloat16, test::fast(model::fastest_instruction_set()));
    compare(golden, *pi0, {Format::float8_e4m3, Format::float16});
    compare(golden, *pi0, {Format::float32, Format::float8_e5m2});
  }
  SECTION("scales of a sample alone") {
    SiteFormats scaled(formats::parse_number_format("float8_e4m3:tensor"), formats::parse_number_format("int8:tensor"));
    scaled.kv_cache = formats::parse_number_format("int8:tensor");
    scaled.vector = formats::parse_number_format("float8_e4m3:tensor");
    for (const model::Execution& execution : {model::Execution(), test::fast(model::fastest_instruction_set())}) {
      compare(golden, *test::load_case(golden, Precision::bfloat16, execution), scaled);
    }
  }
}

}  // namespace
}  // namespace pi0
