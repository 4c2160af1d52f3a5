// Hooks for GPUs: their kernels on the CPU, thread by thread, and on a GPU where there is one.
#include "model/backends/cuda/cuda_quantizer.h"
#include "model/backends/cuda/device_rounding.h"
#include "model/format_dtype.h"
#include "quant/attach.h"
#include "support/catch.h"
#include "support/devices.h"
#include "support/lone_site.h"
#include "support/tensors.h"
#include "support/tiny_model.h"

namespace pi0 {
namespace {

using model::Precision;
using quant::Format;
using quant::SiteFormats;
using quant::StatsBook;
using test::same;

struct OnDevice {
  at::Tensor values;
  bool overflowed;
};

OnDevice round_on(const model::DeviceKernels& kernels, at::Device device, const at::Tensor& values,
                  at::ScalarType stored, Format format) {
  const at::Tensor in = values.to(device);
  const at::Tensor flag = at::zeros({1}, in.options().dtype(at::kInt));
  auto* const overflowed = static_cast<std::uint32_t*>(flag.mutable_data_ptr());
  const at::Tensor out = model::round_on_device(kernels, in, stored, format, {&overflowed, 1});
  return {out, flag.item<int>() != 0};
}

void check_rounding(const model::DeviceKernels& kernels, at::Device device) {
  const at::Tensor halves = at::arange(-32768, 32768, at::kInt).to(at::kShort);
  const at::Tensor bits = at::randint(-2147483648LL, 2147483648LL, {1'000'000}, at::kLong).to(at::kInt);
  for (const at::Tensor& values : {halves.view(at::kHalf).to(at::kFloat), halves.view(at::kBFloat16).to(at::kFloat),
                                   bits.view(at::kFloat), at::full({3}, 1.0F)}) {
    for (const Format format : quant::all_formats) {
      INFO(quant::name_of(format));
      const model::Rounded expected = model::round_to(values, format);
      const OnDevice wide = round_on(kernels, device, values, at::kFloat, format);
      CHECK(same(wide.values, expected.values));
      const at::Tensor beyond = values.isfinite() & (values.abs() >= formats::first_beyond(format));
      CHECK(wide.overflowed == beyond.any().item<bool>());
      const OnDevice half = round_on(kernels, device, values, at::kBFloat16, format);
      CHECK(same(half.values, expected.values.to(at::kBFloat16)));
      if (format != Format::float32) {
        const OnDevice codes = round_on(kernels, device, values, model::dtype_of(format), format);
        CHECK(same(codes.values, expected.values));
      }
      const at::Tensor narrow = values.to(at::kBFloat16);
      CHECK(same(round_on(kernels, device, narrow, at::kFloat, format).values,
                 model::round_to(narrow.to(at::kFloat), format).values));
    }
  }
}

TEST_CASE("a device rounds every pattern as the CPU does", "[quant][device]") {
  check_rounding(test::kernels_in_turn, at::kCPU);
  CHECK_THROWS_AS(round_on(test::kernels_in_turn, at::kCPU, at::ones({2}), at::kHalf, Format::float8_e4m3),
                  std::logic_error);
  CHECK_THROWS_WITH(model::format_of(at::kDouble), contains_text("Double"));
}

TEST_CASE("a GPU rounds every pattern as the CPU does", "[quant][gpu]") {
  if (!test::fast_gpu()) {
    WARN("no GPU: not run");
    return;
  }
  check_rounding(*model::cuda_kernels(), {at::kCUDA, 0});
}

// Rows of x are those of an identity, and so are the product's: what is rounded there on its way is a result by itself.
void check_few_rows(const model::Execution& execution) {
  const at::Device device = execution.device;
  const at::Tensor patterns = at::arange(-32768, 32768, at::kInt).to(at::kShort).view(at::kBFloat16);
  constexpr std::int64_t in = 512;
  for (const Format format : quant::all_formats) {
    test::LoneSite lone(execution);
    model::Linear& site = lone.add_linear("gemma_expert.q_proj", at::eye(in, at::kFloat).to(at::kBFloat16));
    model::SiteList sites = lone.sites();
    const quant::PlanRequest request{quant::one_rule({format, Format::float32}), quant::AttentionScope::all, {}};
    StatsBook book;
    const quant::Attachment attachment(sites, quant::make_plan(sites, request), &book);
    // A value that is not finite would be in every result of its row, times zero.
    const at::Tensor finite = at::where(patterns.to(at::kFloat).abs() < 4e4, patterns, at::zeros({1}, at::kBFloat16));
    const at::Tensor expected = model::round_to(finite.to(at::kFloat), format).values.to(at::kBFloat16);
    std::int64_t different = 0;
    for (std::int64_t first = 0; first < finite.numel(); first += 16 * in) {
      const at::Tensor x = finite.narrow(0, first, 16 * in).view({1, 16, in});
      const at::Tensor found = site.hook()->linear(x.to(device)).cpu().view({-1});
      different += (found != expected.narrow(0, first, 16 * in)).sum().item<std::int64_t>();
    }
    INFO(quant::name_of(format));
    CHECK(different == 0);
    // Saturation, and a NaN, which is in every result of its row and in no other.
    at::Tensor special = at::zeros({1, 3, in}, at::kBFloat16);
    special[0][0][5] = 1e30;
    special[0][1][6] = std::numeric_limits<float>::quiet_NaN();
    special[0][1][7] = 1.1;
    special[0][2][8] = -3.0;
    const at::Tensor found = site.hook()->linear(special.to(device)).cpu().to(at::kFloat);
    if (format == Format::float8_e4m3) CHECK(found[0][0][5].item<float>() == 448.0F);
    CHECK(found[0][1].isnan().all().item<bool>());
    CHECK(found[0][2][8].item<float>() == -3.0F);
    book.finish_request(StatsBook::Measured::yes);
  }
}

TEST_CASE("a product of few rows rounds every pattern as the CPU does", "[quant][device]") {
  check_few_rows(test::like_gpu());
}

TEST_CASE("on a GPU a product of few rows rounds every pattern as the CPU does", "[quant][gpu]") {
  if (!test::fast_gpu()) {
    WARN("no GPU: not run");
    return;
  }
  check_few_rows(*test::fast_gpu());
}

struct Run {
  std::vector<at::Tensor> actions;
  quant::StatsSnapshot seen;
  std::vector<std::string> warnings;
};

// Two requests, hooked.
Run run(const test::GoldenCase& golden, model::Pi0& pi0, SiteFormats formats) {
  Run result;
  StatsBook book;
  const quant::PlanRequest request{quant::one_rule(formats), quant::AttentionScope::all, {}};
  const quant::Attachment attachment(pi0.sites(), quant::make_plan(pi0.sites(), request), &book,
                                     [&](const std::string& line) { result.warnings.push_back(line); });
  for (const double sign : {1.0, -1.0}) {
    result.actions.push_back(pi0.sample_actions(golden.inputs, golden.noise * sign, 2).cpu());
    book.finish_request(StatsBook::Measured::yes);
  }
  result.seen = book.snapshot();
  return result;
}

double apart(std::optional<double> found, std::optional<double> expected) {
  if (found == expected) return 0;
  if (!found || !expected) return 1;
  return *expected == 0 ? std::abs(*found) : std::abs(*found / *expected - 1);
}

// Sums of another order send roundings the other way here and there: in a share of the layers.
void compare(const Run& found, const Run& expected, double most_far = 0.05) {
  for (std::size_t i = 0; i < expected.actions.size(); ++i) {
    CHECK(test::relative_rms(found.actions[i], expected.actions[i]) <= 2e-2);
  }
  CHECK(found.seen.requests == expected.seen.requests);
  REQUIRE(found.seen.sites.size() == expected.seen.sites.size());
  std::size_t far = 0;
  for (std::size_t i = 0; i < found.seen.sites.size(); ++i) {
    const quant::SiteEntry &mine = found.seen.sites[i], &theirs = expected.seen.sites[i];
    INFO(mine.layer);
    CHECK(mine.layer == theirs.layer);
    CHECK(mine.errors.call_count() == theirs.errors.call_count());
    CHECK(mine.errors.nonfinite() == theirs.errors.nonfinite());
    const double difference = apart(mine.errors.rmse(), theirs.errors.rmse());
    CHECK(difference <= 0.25);
    if (difference > 0.02) ++far;
    CHECK(apart(mine.errors.reference_rms(), theirs.errors.reference_rms()) <= 0.02);
  }
  CHECK(static_cast<double>(far) <= most_far * static_cast<double>(found.seen.sites.size()));
}

TEST_CASE("device hooks observe what the reference hooks do", "[quant][device]") {
  const test::GoldenCase golden = test::shortened(test::read_case("tiny_pi05"));
  for (const Precision precision : {Precision::float32, Precision::bfloat16}) {
    const auto reference = test::load_case(golden, precision);
    const auto device = test::load_case(golden, precision, test::like_gpu());
    SiteFormats weights(Format::bfloat16, Format::float16);
    weights.weight = {Format::float8_e4m3};
    for (const SiteFormats& formats :
         {SiteFormats{Format::float8_e4m3, Format::float16}, SiteFormats{Format::float16, Format::float8_e5m2},
          SiteFormats{Format::bfloat16, Format::bfloat16}, SiteFormats{Format::float32, Format::float8_e4m3},
          weights}) {
      if (precision == Precision::float32 && formats.input.element == Format::float8_e4m3) continue;
      INFO(quant::name_of(formats.input) << "/" << quant::name_of(formats.output));
      compare(run(golden, *device, formats), run(golden, *reference, formats));
    }
  }
}

TEST_CASE("hooks observe each camera of a batch of them, and a kept schedule again", "[quant][device]") {
  const test::GoldenCase golden = test::shortened(test::read_case("tiny_pi05"), /*cameras=*/2);
  const auto reference = test::load_case(golden, Precision::bfloat16);
  for (const model::Execution& execution : {test::like_gpu_in_turn(), test::fast(model::fastest_instruction_set())}) {
    const auto fast = test::load_case(golden, Precision::bfloat16, execution);
    REQUIRE(fast->execution().backend->batches_cameras());
    INFO(fast->execution().backend->name());
    const SiteFormats formats{Format::float8_e4m3, Format::float16};
    // Norms and attention sum in another order as well here.
    compare(run(golden, *fast, formats), run(golden, *reference, formats), 0.2);
  }
}

TEST_CASE("a kept schedule is observed again by cause, for each sample and not for a dropped request", "[quant]") {
  const test::GoldenCase golden = test::shortened(test::read_case("tiny_pi05"));
  const auto pi0 = test::load_case(golden, Precision::bfloat16, test::fast(model::fastest_instruction_set()));
  StatsBook book;
  const quant::PlanRequest request{
      quant::one_rule(SiteFormats{Format::float8_e4m3, Format::float8_e4m3}), quant::AttentionScope::none, {}};
  quant::Attachment attachment(pi0->sites(), quant::make_plan(pi0->sites(), request), &book);
  const auto entry = [&] {
    const quant::StatsSnapshot seen = book.snapshot();
    const auto found =
        std::ranges::find_if(seen.sites, [](const auto& site) { return site.layer.ends_with(".dense"); });
    REQUIRE(found != seen.sites.end());
    return *found;
  };
  constexpr std::int64_t steps = 2;
  const auto infer = [&] { pi0->sample_actions(golden.inputs, golden.noise, steps); };
  infer();
  book.finish_request(StatsBook::Measured::yes);
  const quant::SiteEntry once = entry();
  CHECK(once.errors.call_count() == steps);
  infer();
  book.drop_request();
  infer();
  book.finish_request(StatsBook::Measured::yes);
  CHECK(entry().errors.call_count() == 2 * steps);
  CHECK(apart(entry().errors.rmse(), once.errors.rmse()) <= 1e-12);
  CHECK(entry().causes.operands.call_count() == 0);
  attachment.measure(false);
  infer();
  book.finish_request(StatsBook::Measured::no);
  CHECK(entry().errors.call_count() == 2 * steps);
  attachment.measure(true);

  attachment.split_errors();
  for (const int requests : {1, 2}) {
    infer();
    book.finish_request(StatsBook::Measured::yes);
    CHECK(entry().causes.operands.call_count() == requests * steps);
    CHECK(entry().errors.call_count() == (2 + requests) * steps);
  }

  attachment.observe_samples_apart(true);
  const model::ModelInputs both = model::joined(std::vector{golden.inputs, golden.inputs});
  for (const int batches : {1, 2}) {
    pi0->sample_actions(both, at::cat({golden.noise, golden.noise}), steps);
    book.finish_batch({true, true}, StatsBook::Measured::yes);
    CHECK(entry().errors.call_count() == (4 + 2 * batches) * steps);
  }
}

// Multiples of 1/8 up to 8: float32 sums of their products are exact in any order, on any CPU.
at::Tensor eighths(at::IntArrayRef shape, at::ScalarType dtype) {
  return (at::randint(-64, 65, shape, at::kFloat) / 8).to(dtype);
}

// One linear of its own.
struct OneLinear {
  test::LoneSite lone;
  model::Linear& site;
  model::SiteList sites;
  StatsBook book;

  explicit OneLinear(at::ScalarType dtype, const model::Execution& execution = test::like_gpu())
      : lone(execution),
        site(lone.add_linear("gemma_expert.q_proj", eighths({10, 24}, dtype) / 8, eighths({10}, dtype))),
        sites(lone.sites()) {}
  quant::Attachment attach(SiteFormats formats, std::vector<std::string>* warnings = nullptr) {
    const quant::PlanRequest request{quant::one_rule(formats), quant::AttentionScope::all, {}};
    return {sites, quant::make_plan(sites, request), &book, [warnings](const std::string& line) {
              if (warnings != nullptr) warnings->push_back(line);
            }};
  }
};

TEST_CASE("a device linear's result and error are those of a direct computation", "[quant][device]") {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    OneLinear one(dtype);
    const auto attachment = one.attach({Format::float8_e5m2, Format::float16});
    const at::Tensor x = eighths({3, 5, 24}, dtype);
    const at::Tensor found = one.site.hook()->linear(x);
    one.book.finish_request(StatsBook::Measured::yes);

    const auto rounded = [](const at::Tensor& values) {
      return model::round_to(values.to(at::kFloat), Format::float8_e5m2).values;
    };
    const at::Tensor sums = at::matmul(rounded(x), rounded(one.site.weight()).t()) + rounded(one.site.bias());
    const at::Tensor result = model::round_to(sums, Format::float16).values;
    CHECK(at::equal(found, result.to(dtype)));
    const at::Tensor exact =
        at::matmul(x.to(at::kFloat), one.site.weight().to(at::kFloat).t()) + one.site.bias().to(at::kFloat);
    const double mse = (exact - result).to(at::kDouble).square().mean().item<double>();
    CHECK(apart(one.book.snapshot().sites[0].errors.mse(), mse) <= 1e-6);
    CHECK(one.site.flop == 2 * x.numel() * 10);  // of the exact product; the layer counts the other
  }
}

TEST_CASE("samples of a batch are observed apart, and unanswered ones forgotten", "[quant][device]") {
  OneLinear one(at::kBFloat16);
  auto attachment = one.attach({Format::float8_e4m3, Format::float8_e4m3});
  const at::Tensor x = eighths({3, 70, 24}, at::kBFloat16);  // more rows each than are multiplied in one go
  attachment.observe_samples_apart(true);
  const std::int64_t changes = one.sites.hook_changes();
  const at::Tensor together = one.site.hook()->linear(x);
  CHECK(one.sites.hook_changes() > changes);  // the records moved
  const std::int64_t settled = one.sites.hook_changes();
  CHECK(at::equal(one.site.hook()->linear(x), together));
  CHECK(one.sites.hook_changes() == settled);
  one.book.drop_request();
  one.site.hook()->linear(x);
  one.book.finish_batch({true, false, true}, StatsBook::Measured::yes);
  const quant::ErrorStats found = one.book.snapshot().sites[0].errors;

  one.book.reset();
  for (const std::int64_t sample : {0, 2}) {
    CHECK(at::equal(one.site.hook()->linear(x.narrow(0, sample, 1)), together.narrow(0, sample, 1)));
    one.book.finish_request(StatsBook::Measured::yes);
  }
  const quant::ErrorStats alone = one.book.snapshot().sites[0].errors;
  CHECK(found.call_count() == 2);
  CHECK(apart(found.rmse(), alone.rmse()) <= 1e-12);
  CHECK(apart(found.mse_std(), alone.mse_std()) <= 1e-9);

  one.site.hook()->linear(x);
  one.book.drop_request();
  one.book.finish_request(StatsBook::Measured::yes);
  CHECK(one.book.snapshot().sites[0].errors.call_count() == 2);
}

TEST_CASE("joined calls of a batch are each an observation of their own sample", "[quant][device]") {
  const bool on_cpu = GENERATE(false, true);
  OneLinear one(at::kBFloat16, on_cpu ? test::fast(model::fastest_instruction_set()) : test::like_gpu());
  auto attachment = one.attach({Format::float8_e4m3, Format::float8_e4m3});
  attachment.observe_samples_apart(true);
  const at::Tensor x = eighths({6, 70, 24}, at::kBFloat16);  // two calls of three samples each
  one.site.calls = 2;
  one.site.hook()->linear(x);
  one.site.calls = 1;
  one.book.finish_batch({true, true, false}, StatsBook::Measured::yes);
  const quant::ErrorStats joined = one.book.snapshot().sites[0].errors;

  one.book.reset();
  for (const std::int64_t sample : {0, 1}) {
    for (const std::int64_t call : {0, 1}) one.site.hook()->linear(x.narrow(0, 3 * call + sample, 1));
    one.book.finish_request(StatsBook::Measured::yes);
  }
  const quant::ErrorStats apart_calls = one.book.snapshot().sites[0].errors;
  CHECK(joined.call_count() == 4);
  CHECK(apart(joined.rmse(), apart_calls.rmse()) <= 1e-12);
  CHECK(apart(joined.mse_std(), apart_calls.mse_std()) <= 1e-9);
}

TEST_CASE("what a detached device hook still has is warned of and not counted", "[quant][device]") {
  OneLinear one(at::kFloat);
  std::vector<std::string> warnings;
  {
    const auto attachment = one.attach({Format::float32, Format::float16}, &warnings);
    one.site.hook()->linear(at::full({1, 2, 24}, 1e30F));
  }
  CHECK(warnings.size() == 1);
  CHECK(one.site.hook() == nullptr);
  one.book.finish_request(StatsBook::Measured::yes);
  CHECK(one.book.snapshot().sites[0].errors.call_count() == 0);
}

TEST_CASE("what overflows on a device is warned of when the request ends", "[quant][device]") {
  OneLinear one(at::kFloat);
  std::vector<std::string> warnings;
  const auto attachment = one.attach({Format::float32, Format::float16}, &warnings);
  for (int call = 0; call < 3; ++call) one.site.hook()->linear(at::full({1, 2, 24}, 1e30F));
  CHECK(warnings.empty());
  one.book.finish_request(StatsBook::Measured::yes);
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], contains_text("q_proj") && contains_text("its output"));
  const quant::ErrorStats errors = one.book.snapshot().sites[0].errors;
  CHECK(errors.nonfinite() == 3 * 2 * 10);
  CHECK_FALSE(errors.rmse());
}

}  // namespace
}  // namespace pi0
