#include "quant/quant_plan.h"

#include "model/pi0.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

namespace pi0 {
namespace {

using model::Component;
using quant::AttentionScope;
using quant::Format;
using quant::SiteFormats;

const SiteFormats pair{Format::float8_e4m3, Format::float16};

// The sites of a tiny Pi0.5, without weights.
struct Sites {
  model::ShapeRecorder shapes;
  model::Pi0 pi0{model::tiny_config(true), shapes, model::Precision::float32, {}};
};

std::size_t hooked(const quant::QuantPlan& plan) {
  return static_cast<std::size_t>(std::ranges::count_if(plan.matmuls, [](const auto& p) { return p.has_value(); }));
}

TEST_CASE("one rule, scopes and skipped components choose the sites", "[quant][plan]") {
  Sites sites;
  const auto count = [&](AttentionScope scope, std::set<Component> skip) {
    return hooked(quant::make_plan(sites.pi0.sites(), {quant::one_rule(pair), scope, std::move(skip)}));
  };
  CHECK(count(AttentionScope::none, {}) == 84);
  CHECK(count(AttentionScope::vision, {}) == 84 + 2);
  CHECK(count(AttentionScope::all, {}) == 84 + 2 + 4 + 4);
  CHECK(count(AttentionScope::all, {Component::vision}) == 84 + 8 - 12);
  CHECK(count(AttentionScope::none, {Component::action_head, Component::language}) == 84 - 4 - 30);
}

std::vector<quant::Rule> rules_of(const std::string& json) {
  const test::TemporaryFolder folder;
  test::write_all(folder.path() / "rules.json", json);
  return quant::read_rules(folder.path() / "rules.json");
}

TEST_CASE("the first rule that matches a site decides", "[quant][plan]") {
  Sites sites;
  const auto rules = rules_of(R"({"rules": [
      {"match": "*.layers.0.*", "off": true},
      {"match": "*.mlp.*_proj", "input_fmt": "float8_e5m2", "output_fmt": "bfloat16"},
      {"component": "language", "input_fmt": "float8_e4m3", "output_fmt": "float16"}]})");
  const auto plan = quant::make_plan(sites.pi0.sites(), {rules, AttentionScope::all, {}});
  std::size_t i = 0;
  for (const model::MatmulSite& site : sites.pi0.sites().all()) {
    INFO(site.path);
    const auto& formats = plan.matmuls[i++];
    if (site.path.find(".layers.0.") != std::string::npos) {
      CHECK_FALSE(formats);
    } else if (site.path.find(".mlp.") != std::string::npos && site.path.ends_with("_proj")) {
      CHECK(formats == SiteFormats{Format::float8_e5m2, Format::bfloat16});
    } else if (site.component == Component::language) {
      CHECK(formats == pair);
    } else {
      CHECK_FALSE(formats);
    }
  }
  CHECK_THROWS_WITH(
      quant::make_plan(sites.pi0.sites(),
                       {rules_of(R"({"rules":[{"match":"nowhere*","off":true}]})"), AttentionScope::all, {}}),
      contains_text("rule 1") && contains_text("nowhere*"));
  CHECK_THROWS_WITH(quant::make_plan(sites.pi0.sites(), {rules_of(R"({"rules":[{"component":"vision","off":true}]})"),
                                                         AttentionScope::all,
                                                         {Component::vision}}),
                    contains_text("component 'vision'"));
}

TEST_CASE("a rule may take weights and the KV cache apart, and has methods", "[quant][plan]") {
  Sites sites;
  const auto rules = rules_of(R"({"rules": [
      {"match": "*.layers.1.self_attn.kv_cache", "kv_cache_fmt": "mxfp8_e4m3"},
      {"component": "language", "input_fmt": "int8:row", "weight_fmt": "int4:group128", "output_fmt": "bfloat16",
       "kv_cache_fmt": "int8:row", "rotate": true, "smooth": 0.5, "clip": 99.9}]})");
  const quant::QuantPlan plan = quant::make_plan(sites.pi0.sites(), {rules, AttentionScope::all, {}});
  CHECK(hooked(plan) == 30 + 4);
  REQUIRE(plan.kv_caches.size() == 4);  // of the language model only
  for (std::size_t layer = 0; layer < 4; ++layer) {
    CHECK(plan.kv_caches[layer] == quant::parse_format(layer == 1 ? "mxfp8_e4m3" : "int8:row"));
  }
  std::size_t i = 0;
  for (const model::MatmulSite& site : sites.pi0.sites().all()) {
    const auto& formats = plan.matmuls[i++];
    if (site.component != Component::language) continue;
    REQUIRE(formats);
    CHECK(formats->weight == quant::parse_format("int4:group128"));
    CHECK(formats->methods == formats::Methods{true, 0.5, 99.9});
  }
}

TEST_CASE("a wrong rules file is refused by file, rule and key", "[quant][plan]") {
  const auto refuses = [](const std::string& json, const std::string& what) {
    INFO(json);
    CHECK_THROWS_WITH(rules_of(json), contains_text("rules.json") && contains_text(what));
  };
  refuses("{", "not valid JSON");
  refuses("[]", "expected");
  refuses(R"({"rules":[{"match":"a","match":"b","off":true}]})", "has the key 'match' twice");
  refuses(R"({"rules":[{"match":)" + std::string(100'000, '[') + "]}", "nested more than 64 levels deep");
  CHECK(rules_of(R"({"rules":[]})").empty());  // a budget that no layer keeps
  refuses(R"({"rules":[], "more":1})", "unknown key 'more'");
  refuses(R"({"rules":{}})", "list");
  refuses(R"({"rules":[{"match":"*","off":true}], "more":1})", "unknown key 'more'");
  refuses(R"({"rules":[{}]})", "'rules' entry 1");
  refuses(R"({"rules":[7]})", "object");
  refuses(R"({"rules":[{"match":"*","component":"vision","off":true}]})", "either");
  refuses(R"({"rules":[{"match":7,"off":true}]})", "match");
  refuses(R"({"rules":[{"component":"wheels","off":true}]})", "wheels");
  refuses(R"({"rules":[{"match":"*","input_fmt":"float16"}]})", "output_fmt");
  refuses(R"({"rules":[{"match":"*","input_fmt":"float16","output_fmt":"half"}]})", "half");
  refuses(R"({"rules":[{"match":"*","off":true,"input_fmt":"float16","output_fmt":"float16"}]})", "off");
  refuses(R"({"rules":[{"match":"*","off":true},{"match":"a","of":true}]})",
          "'rules' entry 2: unknown key 'of'; did you mean 'off'?");
  refuses(R"({"rules":[{"mach":"*","input_fmt":"float16","output_fmt":"float16"}]})",
          "unknown key 'mach'; did you mean 'match'?");
  refuses(R"({"rules":[{"match":"*","input_fmt":"float16","output_fmt":"bflaot16"}]})", "did you mean 'bfloat16'?");
  refuses(R"({"rules":[{"match":"*","input_fmt":"int8:columns","output_fmt":"bfloat16"}]})", "granularity 'columns'");
  refuses(R"({"rules":[{"match":"*","weight_fmt":"int8:row"}]})", "input_fmt");
  refuses(R"({"rules":[{"match":"*","vector_fmt":"bflaot16"}]})", "did you mean 'bfloat16'?");
  refuses(R"({"rules":[{"match":"*","vector_fmt":"int8:tensor:static"}]})", "vector operations");
  refuses(R"({"rules":[{"match":"*","off":true,"vector_fmt":"bfloat16"}]})", "off");
  CHECK(rules_of(R"({"rules":[{"match":"*.act","vector_fmt":"bfloat16"}]})")[0].formats->vector ==
        quant::parse_format("bfloat16"));
  refuses(R"({"rules":[{"match":"*","input_fmt":"int8:row","output_fmt":"bfloat16","smooth":2}]})", "from 0 to 1");
  refuses(R"({"rules":[{"match":"*","input_fmt":"int8:row","output_fmt":"bfloat16","clip":"99"}]})",
          "expected a number");
  refuses(R"({"rules":[{"match":"*","off":true,"rotate":true}]})", "off");
  CHECK_THROWS_WITH(quant::read_rules("absent.json"), contains_text("cannot be opened"));
}

}  // namespace
}  // namespace pi0
