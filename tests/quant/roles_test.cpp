// Which values of attention and of the KV cache share scales, and where static ones come from.
#include <array>
#include <map>
#include <string>

#include "model/kv_cache.h"
#include "model/number_rounding.h"
#include "quant/attach.h"
#include "support/catch.h"
#include "support/lone_site.h"
#include "support/tensors.h"
#include "support/tiny_model.h"

namespace pi0 {
namespace {

using quant::NumberFormat;
using quant::SiteFormats;
using quant::StatsBook;

class Overflows : public model::ErrorSink {
 public:
  void observe(std::size_t, std::size_t, const formats::CallError&) override {}
  void observe(std::size_t, std::size_t, const formats::ErrorStats&) override {}
  void observe(std::size_t, std::size_t, const formats::ByCause<formats::CallError>&) override {}
  void overflowed(std::size_t, model::Operand operand) override { of_input |= operand == model::Operand::input; }
  bool of_input = false;
};

at::Tensor rounded_rows(const at::Tensor& values, const NumberFormat& format) {
  return model::round_activations(values.to(at::kFloat), format).values.to(values.scalar_type());
}

TEST_CASE("scales of attention run along the head size, and of its values along the keys", "[quant][roles]") {
  test::LoneSite lone({});
  model::Attention& site = lone.add_attention("gemma_expert.self_attn.sdpa", 16);
  model::SiteList sites = lone.sites();
  const NumberFormat input = quant::parse_format("int8:row"), output = quant::parse_format("mxfp4");
  const test::AttentionCase given(at::kBFloat16);
  const model::LayerKv& prefix = given.prefix;
  const model::AttentionOperands& exact = given.operands;
  const auto attachment = quant::attach(sites, {quant::one_rule({input, output}), quant::AttentionScope::all}, nullptr);
  const auto along_keys = [&](const at::Tensor& value) {
    return rounded_rows(value.transpose(2, 3), input).transpose(2, 3).contiguous();
  };
  const model::LayerKv rounded_prefix{rounded_rows(prefix.key, input), along_keys(prefix.value)};
  model::AttentionOperands rounded = exact;
  rounded.query = rounded_rows(exact.query, input);
  rounded.prefix = &rounded_prefix;
  rounded.key = rounded_rows(exact.key, input);
  rounded.value = along_keys(exact.value);
  CHECK(at::equal(site.hook()->attention(exact), rounded_rows(model::plain_attention(rounded), output)));
}

TEST_CASE("the KV cache is rounded by token and head, and is a layer of the statistics", "[quant][roles]") {
  const test::GoldenCase golden = test::read_case("tiny_pi05");
  for (const model::Execution& execution : {model::Execution(), test::fast(model::fastest_instruction_set()),
                                            test::fast(model::instruction_sets().back())}) {
    const auto pi0 = test::load_case(golden, model::Precision::bfloat16, execution);
    const at::Tensor plain = pi0->sample_actions(golden.inputs, golden.noise, 2);
    SiteFormats formats;
    formats.kv_cache = quant::parse_format("int8:row");
    StatsBook book;
    {
      const quant::PlanRequest request{{{"*.kv_cache", std::nullopt, formats}}, quant::AttentionScope::all};
      const auto attachment = quant::attach(pi0->sites(), request, &book);
      CHECK(attachment->site_count() == 4);
      CHECK_FALSE(at::equal(pi0->sample_actions(golden.inputs, golden.noise, 2), plain));
      book.finish_request(StatsBook::Measured::yes);

      auto& cache = dynamic_cast<model::KvCacheSite&>(pi0->sites().kv_caches()[0].get());
      const model::LayerKv layer{at::randn({1, 1, 9, 16}).to(at::kBFloat16),
                                 at::randn({1, 1, 9, 16}).to(at::kBFloat16)};
      const model::LayerKv kept = cache(layer);
      CHECK(at::equal(kept.key, rounded_rows(layer.key, *formats.kv_cache)));
      CHECK(at::equal(kept.value, rounded_rows(layer.value, *formats.kv_cache)));
      book.drop_request();
    }
    CHECK(at::equal(pi0->sample_actions(golden.inputs, golden.noise, 2), plain));
    const quant::StatsSnapshot seen = book.snapshot();
    REQUIRE(seen.sites.size() == 4);
    for (const quant::SiteEntry& site : seen.sites) {
      CHECK(site.kind == "kv_cache");
      CHECK(site.component == "language");
      CHECK(site.errors.call_count() == 1);  // once a request
      CHECK(site.errors.rel_rmse().value() > 0);
      CHECK(site.errors.rel_rmse().value() < 0.02);
    }
  }
}

TEST_CASE("a static scale is the calibration's, and values beyond it saturate", "[quant][roles]") {
  const at::Tensor x = at::randn({2, 6, 48}).to(at::kBFloat16), weight = at::randn({40, 48}).to(at::kBFloat16);
  model::InputStatistics statistics{at::full({48}, 1.0F), {}};
  statistics.absmax.index_put_({5}, x.abs().max().to(at::kFloat) / 2);
  const float most = statistics.absmax.max().item<float>();
  const at::Tensor values = x.to(at::kFloat);
  const float int8_scale = most / 127.5F, e4m3_scale = most / 448;
  const std::map<std::string, at::Tensor> expected_values = {
      {"int8:tensor:static", at::round(values * (1 / int8_scale)).clamp(-128, 127) * int8_scale},
      {"float8_e4m3:tensor:static",
       (values / e4m3_scale).clamp(-448, 448).to(at::kFloat8_e4m3fn).to(at::kFloat) * e4m3_scale}};
  for (const auto& [name, expected] : expected_values) {
    INFO(name);
    const NumberFormat format = quant::parse_format(name);
    const model::Rounded rounded = model::round_activations(values, format, formats::Range{-most, most});
    CHECK(at::equal(rounded.values, expected));
    CHECK(rounded.overflowed);
    for (const model::Execution& execution : {model::Execution(), test::fast(model::fastest_instruction_set())}) {
      test::LoneSite lone(execution);
      const model::Linear& site = lone.add_linear("layer", weight);
      Overflows overflows;
      const auto quantizer = execution.backend->quantizer(overflows, {});
      const SiteFormats formats(format, NumberFormat{});
      CHECK_THROWS_WITH(quantizer->add(site, formats, {}), contains_text("calibration"));
      const std::array numbers = {quantizer->add(site, formats, statistics)};
      const at::Tensor y = quantizer->linears(numbers, x)[0].to(at::kFloat);
      CHECK(overflows.of_input);
      const at::Tensor rounded_weight = model::round_matrix(weight.to(at::kFloat), without_static(format));
      CHECK(test::relative_rms(y, at::linear(expected, rounded_weight)) < 4e-3);  // it is bfloat16
    }
  }
}

TEST_CASE("weights of a scaled format take what their codes and scales do", "[quant][roles]") {
  const test::GoldenCase golden = test::read_case("tiny_pi05");
  const auto pi0 = test::load_case(golden, model::Precision::bfloat16);
  const auto bytes_under = [&](const char* weight) {
    SiteFormats formats;
    formats.weight = quant::parse_format(weight);
    return quant::weight_size(pi0->sites(), quant::make_plan(pi0->sites(), {quant::one_rule(formats)})).bytes;
  };
  const std::int64_t stored = bytes_under("float32"), e4m3 = bytes_under("float8_e4m3"), mxfp4 = bytes_under("mxfp4");
  CHECK(e4m3 < stored);
  CHECK(static_cast<double>(mxfp4) / static_cast<double>(e4m3) > 4.25 / 8);
  CHECK(static_cast<double>(mxfp4) / static_cast<double>(e4m3) < 4.4 / 8);
}

}  // namespace
}  // namespace pi0
