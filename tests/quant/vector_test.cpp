// Operations between products: where they are, what a hook on one is given, and what rounding them does.
#include <map>
#include <set>
#include <string>

#include "model/number_rounding.h"
#include "model/vector_site.h"
#include "quant/attach.h"
#include "support/catch.h"
#include "support/devices.h"
#include "support/tensors.h"
#include "support/tiny_model.h"

namespace pi0 {
namespace {

using at::Tensor;
using quant::AttentionScope;
using quant::SiteFormats;
using quant::StatsBook;

using Inputs = std::vector<Tensor>;

model::VectorSite& vector_of(model::MatmulSite& site) { return dynamic_cast<model::VectorSite&>(site); }

// Runs the operation as it is, and keeps what it saw of each call.
class Spy : public model::VectorHook {
 public:
  explicit Spy(bool observes) : observes_(observes) {}
  Tensor apply(std::span<const Tensor> inputs, model::VectorOperation operation) override {
    ++calls;
    seen.assign(inputs.begin(), inputs.end());
    return result = operation(inputs);
  }
  bool observes() const override { return observes_; }

  int calls = 0;
  Inputs seen;  // of the last call
  Tensor result;

 private:
  const bool observes_;
};

// Spies on the vector sites for which `takes` holds, until it is destroyed.
class Spies {
 public:
  template <class Takes>
  Spies(model::Pi0& pi0, bool observes, const Takes& takes) : sites_(pi0.sites()) {
    for (model::MatmulSite& site : sites_.vectors()) {
      if (takes(site)) vector_of(site).set_hook(&by_path.try_emplace(site.path, observes).first->second);
    }
    sites_.hooks_changed();
  }
  ~Spies() {
    for (model::MatmulSite& site : sites_.vectors()) site.remove_hook();
    sites_.hooks_changed();
  }
  Spies(const Spies&) = delete;
  Spies& operator=(const Spies&) = delete;

  std::map<std::string, Spy> by_path;

 private:
  model::SiteList& sites_;
};

const auto every = [](const model::MatmulSite&) { return true; };
const auto but_softmax = [](const model::MatmulSite& site) { return !site.path.ends_with(".softmax"); };

std::vector<model::Execution> both_cpus() { return {{}, test::fast(model::fastest_instruction_set())}; }

quant::QuantPlan plan_of_vectors(const model::Pi0& pi0, const char* format) {
  SiteFormats formats;
  formats.vector = quant::parse_format(format);
  quant::QuantPlan plan = quant::make_plan(pi0.sites(), {quant::one_rule(formats)});
  for (auto& matmul : plan.matmuls) matmul.reset();
  return plan;
}

Tensor rounded_as(const Tensor& values, const char* format) {
  return model::round_activations(values.to(at::kFloat), quant::parse_format(format)).values.to(values.scalar_type());
}

TEST_CASE("every component has its vector sites, a path each", "[quant][vector]") {
  for (const char* name : {"tiny_pi05", "tiny_pi0"}) {
    const test::GoldenCase golden = test::read_case(name);
    const auto pi0 = test::load_case(golden, model::Precision::bfloat16);
    std::map<model::Component, std::int64_t> counts;
    std::set<std::string> paths;
    for (const model::MatmulSite& site : pi0->sites().vectors()) {
      CHECK(site.kind == model::SiteKind::vector);
      CHECK(paths.insert(site.path).second);
      ++counts[site.component];
    }
    const model::ModelConfig& config = golden.config;
    CHECK(counts[model::Component::vision] == 6 * config.vision.depth + 1);
    CHECK(counts[model::Component::language] == 7 * config.paligemma.depth + 1);
    CHECK(counts[model::Component::action_expert] == 7 * config.action_expert.depth + 1);
    CHECK(counts[model::Component::action_head] == (config.pi05 ? 2 : 1));
    CHECK(counts.size() == 4);
    const std::string vision = "paligemma_with_expert.paligemma.model.vision_tower.vision_model.";
    const std::string expert = "paligemma_with_expert.gemma_expert.model.";
    for (const std::string& path :
         {vision + "encoder.layers.0.layer_norm1", vision + "encoder.layers.0.self_attn.softmax",
          vision + "encoder.layers.0.mlp.act", vision + "encoder.layers.0.mlp.residual", vision + "post_layernorm",
          expert + "layers.0.input_layernorm", expert + "layers.0.self_attn.rotary", expert + "norm",
          std::string(config.pi05 ? "time_mlp_out.act" : "action_time_mlp_in.act")}) {
      INFO(path);
      CHECK(paths.contains(path));
    }
  }
}

TEST_CASE("a plain hook on every vector site but softmax changes no bit", "[quant][vector]") {
  for (const char* name : {"tiny_pi05", "tiny_pi0"}) {
    const test::GoldenCase golden = test::shortened(test::read_case(name));
    for (const model::Execution& execution : both_cpus()) {
      const auto pi0 = test::load_case(golden, model::Precision::bfloat16, execution);
      const Tensor unhooked = pi0->sample_actions(golden.inputs, golden.noise, 2);
      {
        const Spies spies(*pi0, /*observes=*/true, but_softmax);
        CHECK(at::equal(pi0->sample_actions(golden.inputs, golden.noise, 2), unhooked));
      }
      CHECK(at::equal(pi0->sample_actions(golden.inputs, golden.noise, 2), unhooked));
    }
    // A hooked softmax is computed apart from its products; in float32 that changes the order of sums alone.
    for (const model::Execution& execution : both_cpus()) {
      const auto pi0 = test::load_case(golden, model::Precision::float32, execution);
      const Tensor unhooked = pi0->sample_actions(golden.inputs, golden.noise, 2);
      const Spies spies(*pi0, /*observes=*/true, every);
      CHECK(test::relative_rms(pi0->sample_actions(golden.inputs, golden.noise, 2), unhooked) < 1e-5);
    }
  }
}

TEST_CASE("every vector site runs through its hook as often as the reference computes it", "[quant][vector]") {
  for (const char* name : {"tiny_pi05", "tiny_pi0"}) {
    const test::GoldenCase golden = test::read_case(name);
    for (const model::Execution& execution : both_cpus()) {
      const auto pi0 = test::load_case(golden, model::Precision::bfloat16, execution);
      const Spies spies(*pi0, /*observes=*/true, every);
      pi0->sample_actions(golden.inputs, golden.noise, 2);
      CHECK(spies.by_path.size() == pi0->sites().vectors().size());
      for (const auto& [path, spy] : spies.by_path) {
        INFO(path);
        const model::Component component = model::component_of(path);
        const int runs = component == model::Component::vision ? 3 : component == model::Component::language ? 1 : 2;
        CHECK(spy.calls == runs * (path.ends_with(".rotary") ? 2 : 1));  // queries, keys
      }
    }
  }
}

TEST_CASE("what only the keys of the last prefix layer need runs if nothing more is observed", "[quant][vector]") {
  const test::GoldenCase golden = test::shortened(test::read_case("tiny_pi05"));
  const auto pi0 = test::load_case(golden, model::Precision::bfloat16, test::fast(model::fastest_instruction_set()));
  const std::string last = "paligemma_with_expert.paligemma.model.language_model.layers.3.";
  const auto calls = [&](bool observes, const auto& takes) {
    Spies spies(*pi0, observes, takes);
    pi0->sample_actions(golden.inputs, golden.noise, 2);
    std::map<std::string, int> of_last;
    for (const auto& [path, spy] : spies.by_path) {
      if (path.starts_with(last)) of_last[path.substr(last.size())] = spy.calls;
    }
    return of_last;
  };
  using Calls = std::map<std::string, int>;
  CHECK(calls(false, every) == Calls{{"input_layernorm", 1},
                                     {"mlp.act", 0},
                                     {"mlp.residual", 0},
                                     {"post_attention_layernorm", 0},
                                     {"self_attn.residual", 0},
                                     {"self_attn.rotary", 1},
                                     {"self_attn.softmax", 0}});
  // The one before the last has a residual that the last one's norm adds up, once.
  const auto earlier = [&](const model::MatmulSite& site) { return !site.path.starts_with(last); };
  Spies spies(*pi0, /*observes=*/true, [&](const model::MatmulSite& site) {
    return earlier(site) && !site.path.ends_with("language_model.norm");
  });
  pi0->sample_actions(golden.inputs, golden.noise, 2);
  CHECK(spies.by_path.at("paligemma_with_expert.paligemma.model.language_model.layers.2.mlp.residual").calls == 1);
}

TEST_CASE("each kind of vector site is given its inputs and its operation", "[quant][vector]") {
  for (const char* name : {"tiny_pi05", "tiny_pi0"}) {
    const test::GoldenCase golden = test::shortened(test::read_case(name));
    const auto pi0 = test::load_case(golden, model::Precision::float32);
    const auto parameters = pi0->named_parameters();
    const Spies spies(*pi0, /*observes=*/true, every);
    pi0->sample_actions(golden.inputs, golden.noise, 2);
    const auto layer_norm = [&](const std::string& path, const Tensor& x) {
      return at::layer_norm(x, {x.size(-1)}, parameters[path + ".weight"], parameters[path + ".bias"], 1e-6);
    };
    const auto rms = [](const Tensor& x) { return x * at::rsqrt(x.square().mean(-1, true) + 1e-6); };
    for (const auto& [path, spy] : spies.by_path) {
      INFO(path);
      const Inputs& in = spy.seen;
      const Tensor& result = spy.result;
      const auto check = [&](std::size_t inputs, const Tensor& expected) {
        CHECK(in.size() == inputs);
        CHECK(result.sizes() == expected.sizes());
        CHECK(test::relative_rms(result, expected) < 1e-6);
      };
      const bool is_vision = path.find("vision_tower") != std::string::npos;
      const bool is_adaptive = golden.config.pi05 && path.find("gemma_expert") != std::string::npos;
      if (path.ends_with("_mlp_in.act") || path.ends_with("_mlp_out.act")) {
        check(1, at::silu(in[0]));
      } else if (path.ends_with(".act")) {
        is_vision ? check(1, at::gelu(in[0], "tanh")) : check(2, at::gelu(in[0], "tanh") * in[1]);
      } else if (path.ends_with(".residual")) {
        is_adaptive ? check(3, in[0] + in[1] * in[2]) : check(2, in[0] + in[1]);
      } else if (path.ends_with(".rotary")) {  // of keys: turns pairs of values by angles
        CHECK(in.size() == 1);
        CHECK(at::allclose(spy.result.square().sum(-1), in[0].square().sum(-1), 1e-4));
      } else if (path.ends_with(".softmax")) {
        CHECK(in.size() == 1);
        CHECK(at::allclose(spy.result.sum(-1), at::ones({1}), 1e-5));
        if (is_vision) check(1, at::softmax(in[0], -1));  // it has no mask
      } else if (is_vision) {
        check(1, layer_norm(path, in[0]));
      } else if (is_adaptive) {
        check(3, rms(in[0]) * (1 + in[1].unsqueeze(1)) + in[2].unsqueeze(1));
      } else {
        check(1, rms(in[0]) * (1 + parameters[path + ".weight"]));
      }
    }
  }
}

TEST_CASE("a vector site rounds its inputs and its result, and is compared with its own exact result",
          "[quant][vector]") {
  const test::GoldenCase golden = test::shortened(test::read_case("tiny_pi05"));
  const auto operation = [](std::span<const Tensor> in) { return in[0] * in[1] + in[0]; };
  for (const model::Execution& execution : both_cpus()) {
    const auto pi0 = test::load_case(golden, model::Precision::bfloat16, execution);
    for (const char* format : {"bfloat16", "float8_e4m3", "int8:row", "mxfp8_e4m3"}) {
      INFO(format);
      StatsBook book;
      const quant::Attachment attachment(pi0->sites(), plan_of_vectors(*pi0, format), &book);
      CHECK(attachment.site_count() == pi0->sites().vectors().size());
      auto* const hook = dynamic_cast<model::VectorHook*>(pi0->sites().vectors()[0].get().any_hook());
      REQUIRE(hook != nullptr);
      const Inputs in = {at::randn({2, 5, 48}).to(at::kBFloat16), at::randn({2, 1, 48})};
      const Tensor expected =
          rounded_as(operation(Inputs{rounded_as(in[0], format), rounded_as(in[1], format)}), format);
      const Tensor found = hook->apply(in, operation);
      CHECK(found.scalar_type() == expected.scalar_type());
      CHECK(at::equal(found, expected));
      book.finish_request(StatsBook::Measured::yes);
      const quant::SiteEntry seen = book.snapshot().sites.at(0);
      CHECK(seen.kind == "vector");
      CHECK(seen.layer == pi0->sites().vectors()[0].get().path);
      const Tensor exact = operation(in).to(at::kFloat);
      CHECK(seen.errors.mse().value() == Approx((exact - expected.to(at::kFloat)).square().mean().item<double>()));
      CHECK(seen.errors.rel_rmse().value() == Approx(test::relative_rms(expected, exact)));
    }
  }
}

struct VectorRun {
  const char* model;
  model::Precision precision;
  model::Execution execution;
};

TEST_CASE("vector formats change actions by as much as they are coarse", "[quant][vector]") {
  const model::Execution fast = test::fast(model::fastest_instruction_set());
  for (const auto& [name, precision, execution] : {VectorRun{"tiny_pi05", model::Precision::float32, {}},
                                                   {"tiny_pi05", model::Precision::bfloat16, fast},
                                                   {"tiny_pi0", model::Precision::float32, fast},
                                                   {"tiny_pi0", model::Precision::bfloat16, {}}}) {
    const test::GoldenCase golden = test::shortened(test::read_case(name));
    const auto pi0 = test::load_case(golden, precision, execution);
    const Tensor plain = pi0->sample_actions(golden.inputs, golden.noise, 2);
    std::map<std::string, double> errors;
    for (const char* format : {"float32", "bfloat16", "float8_e4m3"}) {
      StatsBook book;
      {
        const quant::Attachment attachment(pi0->sites(), plan_of_vectors(*pi0, format), &book);
        errors[format] = test::relative_rms(pi0->sample_actions(golden.inputs, golden.noise, 2), plain);
        book.finish_request(StatsBook::Measured::yes);
      }
      for (const quant::SiteEntry& site : book.snapshot().sites) {
        INFO(format << " " << site.layer);
        CHECK(site.errors.call_count() > 0);
        if (std::string_view(format) == "float32") CHECK(site.errors.rmse().value() == 0);
      }
    }
    CAPTURE(name, errors);
    // In float32 hooks change the order of attention's sums alone (found: 2e-7); in bfloat16 also where SigLIP's
    // attention and the fast kernels round (found: 4e-3).
    CHECK(errors["float32"] < (precision == model::Precision::float32 ? 1e-6 : 1e-2));
    CHECK(errors["bfloat16"] < 1e-2);    // found: 2e-3 to 4e-3
    CHECK(errors["float8_e4m3"] < 0.2);  // found: 0.05 to 0.1
    CHECK(errors["float8_e4m3"] > 5 * errors["bfloat16"]);
    CHECK(at::equal(pi0->sample_actions(golden.inputs, golden.noise, 2), plain));
  }
}

TEST_CASE("a quantized attention runs its rounded softmax alone through the hook", "[quant][vector]") {
  const test::GoldenCase golden = test::shortened(test::read_case("tiny_pi05"));
  for (const model::Execution& execution : both_cpus()) {
    const auto pi0 = test::load_case(golden, model::Precision::bfloat16, execution);
    const auto observed = [&](const char* format) {
      SiteFormats formats;
      if (format != nullptr) formats.vector = quant::parse_format(format);
      StatsBook book;
      const auto attachment = quant::attach(pi0->sites(), {quant::one_rule(formats)}, &book);
      pi0->sample_actions(golden.inputs, golden.noise, 2);
      book.finish_request(StatsBook::Measured::yes);
      std::map<std::string, quant::SiteEntry> sites;
      for (const quant::SiteEntry& site : book.snapshot().sites) sites[site.layer] = site;
      return sites;
    };
    const auto plain = observed(nullptr), coarse = observed("float8_e4m3");
    for (const auto& [path, site] : coarse) {
      if (!path.ends_with(".softmax")) continue;
      const std::string attention = path.substr(0, path.rfind('.')) + ".sdpa";
      INFO(attention);
      CHECK(site.errors.call_count() == coarse.at(attention).errors.call_count());
      CHECK(plain.at(attention).errors.rel_rmse().value() < 1e-2);
      CHECK(coarse.at(attention).errors.rel_rmse().value() > 1e-3);  // of the rounded weights
    }
  }
}

TEST_CASE("a cached schedule is that of the hooks that are set", "[quant][vector]") {
  const test::GoldenCase golden = test::shortened(test::read_case("tiny_pi05"));
  const auto pi0 = test::load_case(golden, model::Precision::bfloat16, test::fast(model::fastest_instruction_set()));
  const auto sample = [&](StatsBook* book) {
    quant::QuantPlan plan = plan_of_vectors(*pi0, "float8_e4m3");
    for (std::size_t i = 0; i < plan.vectors.size(); ++i) {
      if (!pi0->sites().vectors()[i].get().path.starts_with("time_mlp_")) plan.vectors[i].reset();
    }
    const quant::Attachment attachment(pi0->sites(), plan, book);
    CHECK(attachment.site_count() == 2);
    return pi0->sample_actions(golden.inputs, golden.noise, 2);
  };
  const Tensor plain = pi0->sample_actions(golden.inputs, golden.noise, 2);
  StatsBook book;
  const Tensor measured = sample(&book);  // each step computes its own
  CHECK_FALSE(at::equal(measured, plain));
  CHECK(at::equal(sample(nullptr), measured));
  CHECK(at::equal(pi0->sample_actions(golden.inputs, golden.noise, 2), plain));
}

TEST_CASE("a softmax is in the scope of its attention, and other formats make no plan of vectors", "[quant][vector]") {
  const test::GoldenCase golden = test::read_case("tiny_pi0");
  const auto pi0 = test::load_case(golden, model::Precision::bfloat16);
  SiteFormats formats;
  const auto planned = [&](AttentionScope scope, const std::set<model::Component>& skip) {
    const auto plan = quant::make_plan(pi0->sites(), {quant::one_rule(formats), scope, skip});
    return std::ranges::count_if(plan.vectors, [](const auto& format) { return format.has_value(); });
  };
  CHECK(planned(AttentionScope::all, {}) == 0);
  formats.vector = quant::parse_format("float16");
  const auto all = static_cast<std::ptrdiff_t>(pi0->sites().vectors().size());
  CHECK(planned(AttentionScope::all, {}) == all);
  CHECK(planned(AttentionScope::vision, {}) == all - 4 - 4);  // of both Gemmas
  CHECK(planned(AttentionScope::none, {}) == all - 4 - 4 - golden.config.vision.depth);
  CHECK(planned(AttentionScope::all, {model::Component::action_head}) == all - 1);
  const quant::Rule products{"*_layernorm", std::nullopt, SiteFormats()};
  CHECK_THROWS_AS(quant::make_plan(pi0->sites(), {{products}}), quant::RulesError);
}

TEST_CASE("a GPU refuses vector formats", "[quant][vector]") {
  const test::GoldenCase golden = test::read_case("tiny_pi0");
  const auto pi0 = test::load_case(golden, model::Precision::bfloat16, test::like_gpu());
  CHECK_THROWS_WITH(quant::Attachment(pi0->sites(), plan_of_vectors(*pi0, "bfloat16"), nullptr),
                    contains_text("bfloat16") && contains_text(pi0->sites().vectors()[0].get().path) &&
                        contains_text("not available on a GPU"));
  const Tensor unhooked = pi0->sample_actions(golden.inputs, golden.noise, 2);
  const Spies spies(*pi0, /*observes=*/true, every);  // other hooks may be set
  CHECK(test::relative_rms(pi0->sample_actions(golden.inputs, golden.noise, 2), unhooked) < 1e-2);
}

}  // namespace
}  // namespace pi0
