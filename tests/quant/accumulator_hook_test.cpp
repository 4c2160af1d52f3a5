// Hooks whose sums are accumulated in order: every backend's are the reference's in all bits. Errors by cause, and
// noise.
#include <ATen/Parallel.h>

#include <map>
#include <vector>

#include "model/attention_by_parts.h"
#include "model/number_rounding.h"
#include "model/ordered_linear.h"
#include "quant/attach.h"
#include "support/catch.h"
#include "support/lone_site.h"
#include "support/tensors.h"
#include "support/tiny_model.h"

namespace pi0 {
namespace {

using formats::Accumulator;
using formats::ByCause;
using formats::CallError;
using formats::parse_accumulator;
using quant::NumberFormat;
using quant::SiteFormats;
using quant::StatsBook;

class Causes : public model::ErrorSink {
 public:
  void observe(std::size_t, std::size_t, const CallError& call) override { calls.push_back(call); }
  void observe(std::size_t, std::size_t, const formats::ErrorStats&) override {}
  void observe(std::size_t, std::size_t, const ByCause<CallError>& call) override { by_cause.push_back(call); }
  void overflowed(std::size_t, model::Operand) override {}
  std::vector<CallError> calls;
  std::vector<ByCause<CallError>> by_cause;
};

std::vector<model::Execution> executions() {
  std::vector<model::Execution> all = {model::Execution()};
  for (const model::InstructionSet set : model::instruction_sets()) all.push_back(test::fast(set));
  return all;
}

SiteFormats formats_of(const char* input, const char* weight, const char* output, const char* accumulator) {
  SiteFormats formats(quant::parse_format(input), quant::parse_format(output));
  formats.weight = quant::parse_format(weight);
  formats.accumulator = parse_accumulator(accumulator);
  return formats;
}

double mse_between(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).square().mean().item<double>();
}

TEST_CASE("linears accumulate in order, and observe the exact product and each cause", "[quant][accumulator]") {
  const at::Tensor weight = at::randn({70, 99}).to(at::kBFloat16), bias = at::randn({70}).to(at::kBFloat16);
  for (const auto dtype : {at::kBFloat16, at::kFloat}) {
    const at::Tensor x = at::randn({2, 5, 99}).to(dtype), wide = x.to(at::kFloat);
    for (const char* accumulator : {"bfloat16:1", "bfloat16:32", "float16:7", "ipt", "systolic"}) {
      for (const auto& [input, weights, output] :
           {std::array{"float8_e4m3", "float8_e4m3", "float16"}, std::array{"float32", "float32", "float32"},
            std::array{"int8:row", "int4:group32", "bfloat16"}, std::array{"bfloat16", "mxfp4", "mxfp8_e4m3"}}) {
        INFO(accumulator << " " << input << " " << weights << " " << output << " " << dtype);
        const SiteFormats formats = formats_of(input, weights, output, accumulator);
        const auto plain_weight = plain_cast(formats.weight);
        const at::Tensor a = model::round_activations(wide, formats.input).values;
        const at::Tensor w = plain_weight ? model::round_to(weight.to(at::kFloat), *plain_weight).values
                                          : model::encode(weight, formats.weight).values();
        const at::Tensor b =
            plain_weight ? model::round_to(bias.to(at::kFloat), *plain_weight).values : bias.to(at::kFloat);
        const at::Tensor sum = model::ordered_linear(formats.accumulator, a, w, b);
        const at::Tensor y = model::round_activations(sum, formats.output).values;
        const auto used = [&](const at::Tensor& values) {
          return encodes_operands(formats.accumulator) ? model::encode_operands(values).to(at::kFloat) : values;
        };
        const at::Tensor exact = at::linear(wide, weight.to(at::kFloat), bias.to(at::kFloat));
        const at::Tensor of_rounded = at::linear(used(a), used(w), used(b));
        for (const model::Execution& execution : executions()) {
          test::LoneSite lone(execution);
          const model::Linear& site = lone.add_linear("layer", weight, bias);
          for (const bool split : {false, true}) {
            Causes seen;
            const auto quantizer = execution.backend->quantizer(seen, {});
            quantizer->mode.split_errors = split;
            const std::array numbers = {quantizer->add(site, formats, {})};
            CHECK_FALSE(quantizer->has_exact_product(numbers[0], dtype));
            CHECK(at::equal(quantizer->linears(numbers, x)[0], y.to(dtype)));
            REQUIRE(seen.calls.size() == 1);
            CHECK(seen.calls[0].mse == Approx(mse_between(exact, y)).epsilon(1e-3));
            REQUIRE(seen.by_cause.size() == (split ? 1 : 0));
            if (!split) continue;
            const ByCause<CallError>& causes = seen.by_cause[0];
            const double scale = exact.square().mean().item<double>() * 1e-12;
            CHECK(causes.operands.mse == Approx(mse_between(exact, of_rounded)).epsilon(1e-3).margin(scale));
            CHECK(causes.accumulation.mse == Approx(mse_between(of_rounded, sum)).epsilon(1e-3).margin(scale));
            CHECK(causes.output.mse == Approx(mse_between(sum, y)).epsilon(1e-3).margin(scale));
          }
        }
      }
    }
  }
}

TEST_CASE("attention accumulates its two products in order, but for models of hardware", "[quant][accumulator]") {
  const test::AttentionCase given(at::kBFloat16);
  const model::AttentionOperands& exact = given.operands;
  for (const char* accumulator : {"bfloat16:1", "float16:8"}) {
    const Accumulator parsed = parse_accumulator(accumulator);
    const at::Tensor expected = model::attention_by_parts(exact, [&](const at::Tensor& x, const at::Tensor& weight) {
      return model::ordered_linear(parsed, x, weight, {});
    });
    for (const model::Execution& execution : executions()) {
      test::LoneSite lone(execution);
      const model::Attention& site = lone.add_attention("gemma_expert.self_attn.sdpa", 16);
      Causes seen;
      const auto quantizer = execution.backend->quantizer(seen, {});
      quantizer->mode.split_errors = true;
      SiteFormats formats(formats::Format::float32, formats::Format::float32);
      formats.accumulator = parsed;
      const at::Tensor found = quantizer->attention(quantizer->add(site, formats), exact);
      CHECK(at::equal(found, expected));
      REQUIRE(seen.by_cause.size() == 1);
      CHECK(seen.by_cause[0].operands.mse == 0);
      CHECK(seen.by_cause[0].accumulation.mse == seen.calls[0].mse);
      CHECK(seen.by_cause[0].output.mse == 0);

      formats.accumulator = parse_accumulator("systolic");
      const std::size_t unordered = quantizer->add(site, formats);
      CHECK(at::equal(quantizer->attention(unordered, exact), execution.backend->attention(exact)));
    }
  }
  // With float32's sums, the parts make up the whole but for the order of sums.
  const at::Tensor plain = model::attention_by_parts(
      exact, [](const at::Tensor& x, const at::Tensor& weight) { return at::linear(x, weight); });
  CHECK(test::relative_rms(plain.to(at::kFloat), model::plain_attention(exact).to(at::kFloat)) < 0.01);
}

TEST_CASE("a model's actions under an accumulator are the same with all kernels", "[quant][accumulator]") {
  for (const char* name : {"tiny_pi0", "tiny_pi05"}) {
    const test::GoldenCase golden = test::shortened(test::read_case(name));
    for (const char* accumulator : {"bfloat16:4", "systolic"}) {
      SiteFormats formats(formats::Format::float8_e4m3, formats::Format::bfloat16);
      formats.accumulator = parse_accumulator(accumulator);
      std::map<std::string, at::Tensor> actions;
      for (const model::Execution& execution : executions()) {
        const auto pi0 = test::load_case(golden, model::Precision::float32, execution);
        StatsBook book;
        const auto attachment =
            quant::attach(pi0->sites(), {quant::one_rule(formats), quant::AttentionScope::none}, &book);
        actions[std::string(pi0->sites().backend().instructions())] =
            pi0->sample_actions(golden.inputs, golden.noise, 2);
        book.finish_request(StatsBook::Measured::yes);
        for (const quant::SiteEntry& site : book.snapshot().sites) {
          if (site.errors.call_count() > 0) CHECK(site.errors.rel_rmse().value() > 0);
        }
      }
      // Norms and softmax of the kernels differ in last bits, which rounding passes on.
      for (const auto& [instructions, found] : actions) {
        INFO(name << " " << accumulator << " " << instructions);
        CHECK(test::relative_rms(found, actions.begin()->second) < 0.05);
      }
    }
  }
}

TEST_CASE("noise moves every output by its amount, alone or in a batch", "[quant][accumulator]") {
  const at::Tensor weight = at::randn({40, 32}), x = at::randn({3, 5, 32});
  for (const char* name : {"relative:0.25", "ulp:3,bfloat16"}) {
    SiteFormats formats(formats::Format::float32, formats::Format::bfloat16);
    formats.noise = formats::parse_noise(name);
    std::vector<at::Tensor> results;
    for (const model::Execution& execution : executions()) {
      test::LoneSite lone(execution);
      const model::Linear& site = lone.add_linear("layer", weight);
      Causes seen;
      const auto quantizer = execution.backend->quantizer(seen, {});
      const auto result_of = [&](const SiteFormats& own, const at::Tensor& input) {
        const std::array numbers = {quantizer->add(site, own, {})};
        return quantizer->linears(numbers, input)[0];
      };
      SiteFormats quiet = formats;
      quiet.noise.reset();
      const at::Tensor y = result_of(quiet, x), noisy = result_of(formats, x), moved = (noisy - y).abs();
      CHECK(at::equal(result_of(formats, x), noisy));
      CHECK(at::equal(result_of(formats, x.narrow(0, 1, 1)), noisy.narrow(0, 1, 1)));
      const double up = (noisy > y).to(at::kFloat).mean().item<double>();
      CHECK(up > 0.4);
      CHECK(up < 0.6);
      if (formats.noise->kind == formats::Noise::Kind::relative) {
        CHECK(at::allclose(moved, y.abs() * 0.25, 1e-5, 0));
      } else {
        const at::Tensor step = at::exp2(at::floor(at::log2(y.abs())) - 7);  // y is not 0
        CHECK(at::allclose(moved, 3 * step, 1e-5, 0));
      }
      formats.noise->seed = 5;
      CHECK_FALSE(at::equal(result_of(formats, x), noisy));
      formats.noise->seed = 0;
    }
  }
}

}  // namespace
}  // namespace pi0
