// The CPU's quantizer against the reference's, site by site, on the operands of a reference run.
#include <ATen/Parallel.h>

#include <deque>
#include <map>
#include <span>

#include "model/attention.h"
#include "model/linear.h"
#include "model/number_rounding.h"
#include "quant/attach.h"
#include "support/catch.h"
#include "support/lone_site.h"
#include "support/tensors.h"
#include "support/tiny_model.h"

namespace pi0 {
namespace {

using model::Precision;
using quant::Format;
using quant::NumberFormat;
using quant::SiteFormats;
using quant::StatsBook;

// Keep what the hook that they stand before was given and gave.
class LinearListener : public model::LinearHook {
 public:
  explicit LinearListener(model::Linear& site) : hook_(*site.hook()) { site.set_hook(this); }
  at::Tensor linear(const at::Tensor& x) override {
    inputs.push_back(x);
    results.push_back(hook_.linear(x));
    return results.back();
  }
  bool observes() const override { return hook_.observes(); }

  std::vector<at::Tensor> inputs, results;

 private:
  model::LinearHook& hook_;
};

class AttentionListener : public model::AttentionHook {
 public:
  explicit AttentionListener(model::Attention& site) : hook_(*site.hook()) { site.set_hook(this); }
  at::Tensor attention(const model::AttentionOperands& operands) override {
    inputs.push_back(operands);
    if (operands.prefix != nullptr) {  // which ends with the request
      prefixes.push_back({operands.prefix->key, operands.prefix->value});
      inputs.back().prefix = &prefixes.back();
    }
    results.push_back(hook_.attention(operands));
    return results.back();
  }
  bool observes() const override { return hook_.observes(); }

  std::vector<model::AttentionOperands> inputs;
  std::deque<model::LayerKv> prefixes;
  std::vector<at::Tensor> results;

 private:
  model::AttentionHook& hook_;
};

class OneThread {
 public:
  OneThread() { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(before_); }

 private:
  int before_ = at::get_num_threads();
};

at::Tensor rounded(const at::Tensor& values, const NumberFormat& format) {
  return model::round_activations(values.to(at::kFloat), format).values;
}

at::Tensor rounded_weight(const at::Tensor& weight, const NumberFormat& format) {
  return plain_cast(format) ? rounded(weight, format) : model::encode(weight, format).values();
}

// What sums within 4 eps of their terms' magnitudes may give.
struct Allowed {
  at::Tensor low, high;  // results
  at::Tensor reach;      // of the sums, rounded operands and exact ones together
  double flips;          // what results at a rounding boundary can move the mean squared error by
};

Allowed allowed(const model::Linear& site, const at::Tensor& x, const SiteFormats& formats) {
  const auto wide = [](const at::Tensor& values) { return values.defined() ? values.to(at::kDouble) : values; };
  const auto magnitude = [](const at::Tensor& values) { return values.defined() ? values.abs() : values; };
  const auto reach_of = [&](const at::Tensor& a, const at::Tensor& w, const at::Tensor& b) {
    return at::linear(a.abs(), w.abs(), magnitude(b)) * (4 * std::ldexp(1.0, -23));
  };
  const bool rounds_bias = site.bias().defined() && plain_cast(formats.weight);
  const at::Tensor a = wide(rounded(x, formats.input)), w = wide(rounded_weight(site.weight(), formats.weight)),
                   b = wide(rounds_bias ? rounded(site.bias(), formats.weight) : site.bias());
  const at::Tensor y = at::linear(a, w, b), reach = reach_of(a, w, b);
  const auto result = [&](const at::Tensor& sum) { return rounded(sum, formats.output).to(x.scalar_type()); };
  const auto squared_error =
      [&, exact = at::linear(wide(x), wide(site.weight()), wide(site.bias()))](const at::Tensor& sum) {
        return (exact - wide(rounded(sum, formats.output))).square();
      };
  const at::Tensor moved = (squared_error(y - reach) - squared_error(y + reach)).abs();
  const double flips = moved.masked_select(moved.isfinite()).sum().item<double>() / static_cast<double>(y.numel());
  return {result(y - reach), result(y + reach), reach + reach_of(wide(x), wide(site.weight()), wide(site.bias())),
          flips};
}

double mse_of(const StatsBook& book, const std::string& layer) {
  for (const quant::SiteEntry& site : book.snapshot().sites) {
    if (site.layer == layer) return site.errors.mse().value_or(-1);
  }
  throw std::logic_error(layer + " is not in the book");
}

void compare_sites(const test::GoldenCase& golden, const SiteFormats& formats, model::Pi0& reference,
                   std::span<const std::unique_ptr<model::Pi0>> fast) {
  const quant::PlanRequest request{quant::one_rule(formats), quant::AttentionScope::all, {}};
  StatsBook book;
  const auto attachment = quant::attach(reference.sites(), request, &book);
  std::map<std::string, LinearListener> linears;
  std::map<std::string, AttentionListener> attentions;
  for (model::MatmulSite& site : reference.sites().all()) {
    if (auto* const linear = dynamic_cast<model::Linear*>(&site)) linears.try_emplace(site.path, *linear);
    if (auto* const attention = dynamic_cast<model::Attention*>(&site)) attentions.try_emplace(site.path, *attention);
  }
  reference.sample_actions(golden.inputs, golden.noise, 1);
  book.finish_request(StatsBook::Measured::yes);
  std::map<std::string, std::vector<Allowed>> may;
  std::map<std::string, double> drift;  // how far a site's RMSE may be from the reference's
  std::map<std::string, double> flips;  // and its mean squared error
  for (const model::MatmulSite& site : reference.sites().all()) {
    const auto listener = linears.find(site.path);
    if (listener == linears.end()) continue;
    const std::vector<at::Tensor>& inputs = listener->second.inputs;
    for (const at::Tensor& x : inputs) {
      may[site.path].push_back(allowed(dynamic_cast<const model::Linear&>(site), x, formats));
      flips[site.path] += may[site.path].back().flips / static_cast<double>(inputs.size());
      // Elements drift either way, so that of n of them a mean sees one part in the root of n.
      const at::Tensor& reach = may[site.path].back().reach;
      drift[site.path] = std::max(drift[site.path], reach.square().mean().sqrt().item<double>() /
                                                        std::sqrt(static_cast<double>(reach.numel())));
    }
  }

  for (const auto& pi0 : fast) {
    StatsBook fast_book;
    const auto fast_attachment = quant::attach(pi0->sites(), request, &fast_book);
    for (model::MatmulSite& site : pi0->sites().all()) {
      INFO(pi0->sites().backend().instructions() << " " << site.path);
      if (auto* const linear = dynamic_cast<model::Linear*>(&site)) {
        const LinearListener& heard = linears.at(site.path);
        for (std::size_t i = 0; i < heard.inputs.size(); ++i) {
          const at::Tensor found = linear->hook()->linear(heard.inputs[i]);
          REQUIRE(found.scalar_type() == heard.inputs[i].scalar_type());
          const Allowed& range = may[site.path][i];
          const bool within = ((range.low <= found) & (found <= range.high)).all().item<bool>();
          if (within || at::equal(found, heard.results[i])) continue;  // equal with NaN and infinities
          // Where results share a scale, a last bit of one can move all, and of integers the most negative value of a
          // group lies on a tie (-7.5 steps of int4): one value of 256 may be a step off.
          REQUIRE_FALSE(plain_cast(formats.output));
          CHECK(test::relative_rms(found.to(at::kFloat), heard.results[i].to(at::kFloat)) <= 0.03);
        }
      }
      if (auto* const attention = dynamic_cast<model::Attention*>(&site)) {
        const AttentionListener& heard = attentions.at(site.path);
        for (std::size_t i = 0; i < heard.inputs.size(); ++i) {
          model::LayerKv prefix;
          model::AttentionOperands operands = heard.inputs[i];
          if (operands.prefix != nullptr) {
            prefix = {operands.prefix->key, operands.prefix->value};
            operands.prefix = &prefix;
          }
          const at::Tensor found = attention->hook()->attention(operands);
          CHECK(test::relative_rms(found.to(at::kFloat), heard.results[i].to(at::kFloat)) <= 0.02);
        }
      }
    }
    fast_book.finish_request(StatsBook::Measured::yes);
    for (const model::MatmulSite& each : reference.sites().all()) {
      INFO(pi0->sites().backend().instructions() << " " << each.path);
      const double found = mse_of(fast_book, each.path), expected = mse_of(book, each.path);
      INFO(found << " " << expected);
      const bool is_monotone = each.kind == model::SiteKind::linear && plain_cast(formats.output);
      const double tolerance = is_monotone ? 1e-4 : 2e-2;
      CHECK((found == expected || std::abs(found - expected) <= tolerance * expected +
                                                                    2 * std::sqrt(expected) * drift[each.path] +
                                                                    flips[each.path]));
    }
  }
}

TEST_CASE("fast hooks give the reference hooks' results and errors at every site", "[quant][fast]") {
  const OneThread one_thread;  // nothing here is large enough for two
  const test::GoldenCase golden = test::shortened(test::read_case("tiny_pi05"));
  for (const Precision precision : {Precision::bfloat16, Precision::float32}) {
    const auto reference = test::load_case(golden, precision);
    std::vector<std::unique_ptr<model::Pi0>> fast;
    for (const model::InstructionSet set : model::instruction_sets()) {
      fast.push_back(test::load_case(golden, precision, test::fast(set)));
    }
    // Every instruction set takes each format as input and output; mixed pairs go to the sets in turn.
    std::size_t turn = 0;
    for (const Format input : quant::all_formats) {
      for (const Format output : quant::all_formats) {
        if (precision == Precision::float32 && input != output) continue;
        const std::span all(fast);
        const auto models = input == output ? all : all.subspan(turn++ % all.size(), 1);
        INFO(quant::name_of(input) << "/" << quant::name_of(output)
                                   << (precision == Precision::bfloat16 ? " bfloat16" : " float32"));
        compare_sites(golden, {input, output}, *reference, models);
      }
    }
  }
}

TEST_CASE("fast hooks of scaled formats give the reference hooks' results at every site", "[quant][fast]") {
  const OneThread one_thread;
  const test::GoldenCase golden = test::shortened(test::read_case("tiny_pi05"), 3);
  const auto reference = test::load_case(golden, Precision::bfloat16);
  std::vector<std::unique_ptr<model::Pi0>> fast;
  for (const model::InstructionSet set : model::instruction_sets()) {
    fast.push_back(test::load_case(golden, Precision::bfloat16, test::fast(set)));
  }
  const NumberFormat wide{Format::bfloat16};
  const bool has_amx = model::instruction_sets().back() == model::InstructionSet::amx_bf16;
  std::size_t turn = 0, number = 0;
  for (const char* name : {"mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4", "mxint8", "nvfp4",
                           "float8_e4m3:tensor:po2", "float8_e4m3:tensor", "float8_e4m3:row", "float8_e4m3:group128",
                           "float8_e4m3:tile128", "int8:row", "int4:group128", "int4:group32:asymmetric"}) {
    const NumberFormat format = formats::parse_number_format(name);
    INFO(name);
    const std::span all(fast);
    // AMX takes every third format: only its tiles are its own, and as emulation they are slow.
    compare_sites(golden, {format, wide}, *reference, all.first(all.size() - (has_amx && number++ % 3 != 2 ? 1 : 0)));
    const auto next = [&] { return all.subspan(turn++ % all.size(), 1); };
    SiteFormats weights(wide, wide);
    weights.weight = format;
    compare_sites(golden, weights, *reference, next());
    compare_sites(golden, {wide, format}, *reference, next());
  }
}

at::Tensor rounded_product(const model::Execution& execution, const at::Tensor& weight, const SiteFormats& formats,
                           const at::Tensor& x) {
  test::LoneSite lone(execution);
  const model::Linear& site = lone.add_linear("gemma_expert.layer", weight);
  model::SiteList sites = lone.sites();
  const auto attachment = quant::attach(sites, {quant::one_rule(formats), quant::AttentionScope::none, {}}, nullptr);
  return site.hook()->linear(x);
}

TEST_CASE("rotated operands give the reference's product", "[quant][fast]") {
  const at::Tensor x = at::randn({1, 40, 130}).to(at::kBFloat16), weight = at::randn({70, 130}).to(at::kBFloat16);
  SiteFormats formats(formats::parse_number_format("int8:row"), NumberFormat{Format::float32});
  formats.weight = formats::parse_number_format("int4:group32");
  formats.methods.rotate = true;
  const at::Tensor expected = rounded_product({}, weight, formats, x);
  for (const model::InstructionSet set : model::instruction_sets()) {
    INFO(model::name_of(set));
    CHECK(test::relative_rms(rounded_product(test::fast(set), weight, formats, x), expected) <= 1e-3);
  }
}

// So that they cost what the model's own operands do.
TEST_CASE("float16 operands of a bfloat16 model are multiplied as its own", "[quant][fast]") {
  const auto kept = [](const at::Tensor& values) {  // by float16, too
    return values.to(at::kBFloat16).to(at::kHalf).to(at::kBFloat16);
  };
  const at::Tensor x = kept(at::randn({1, 64, 2048})), weight = kept(at::randn({640, 2048}));
  for (const model::InstructionSet set : model::instruction_sets()) {
    INFO(model::name_of(set));
    test::LoneSite lone(test::fast(set));
    const at::Tensor expected = lone.add_linear("gemma_expert.layer", weight)(x);
    const auto found = [&](const SiteFormats& formats) { return rounded_product(test::fast(set), weight, formats, x); };
    CHECK(at::equal(found({Format::float16, Format::float32}), expected));
    SiteFormats coded(Format::bfloat16, Format::float32);
    coded.weight = formats::parse_number_format("int4:group32");
    const at::Tensor of_bfloat16 = found(coded);
    coded.input = NumberFormat{Format::float16};
    CHECK(at::equal(found(coded), of_bfloat16));
  }
}

TEST_CASE("float16 operands may overflow, be subnormal or vanish", "[quant][fast]") {
  // Each row's exponents are near each other, from below float16's smallest in the first to above its largest in the
  // last, so that no row's sum hides what became of its small values.
  const auto operand = [](std::int64_t rows) {
    const at::Tensor exponents = at::linspace(-28, 16, rows).round().unsqueeze(1) + at::randint(-2, 3, {rows, 130});
    return at::ldexp(at::randn({rows, 130}).sign() * at::rand({rows, 130}).add(1), exponents).to(at::kBFloat16);
  };
  const at::Tensor x = operand(40), weight = operand(70);
  x[13][5] = 70000.0F;
  x[17][129] = -std::numeric_limits<float>::infinity();
  x[19][0] = std::numeric_limits<float>::quiet_NaN();
  weight[21][64] = -1e9F;
  const SiteFormats formats(Format::float16, Format::float32);
  const auto operand_of = [&](const at::Tensor& values) { return rounded(values, formats.input).to(at::kDouble); };
  const at::Tensor exact = at::linear(operand_of(x), operand_of(weight));
  CHECK(exact.isinf().any().item<bool>());
  CHECK(exact.isnan().any().item<bool>());
  // A sum of products in float32 errs by less than this, whatever its order; rounding then keeps the order of values.
  const at::Tensor error =
      at::linear(operand_of(x).abs(), operand_of(weight).abs()).nan_to_num(0, 0) * std::ldexp(130.0, -24);
  const auto as_model = [](const at::Tensor& sums) { return sums.to(at::kFloat).to(at::kBFloat16); };
  const at::Tensor least = as_model(exact - error), largest = as_model(exact + error);
  for (const model::InstructionSet set : model::instruction_sets()) {
    INFO(model::name_of(set));
    const at::Tensor found = rounded_product(test::fast(set), weight, formats, x);
    CHECK(((found.isnan() & exact.isnan()) | ((least <= found) & (found <= largest))).all().item<bool>());
  }
}

}  // namespace
}  // namespace pi0
