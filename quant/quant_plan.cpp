#include "quant/quant_plan.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>

#include "model/json_fields.h"
#include "model/nearest_name.h"

namespace pi0::quant {
namespace {

using model::Component;
using model::Json;
using model::JsonFields;
using model::MatmulSite;
using model::SiteKind;

constexpr std::array components = {Component::vision, Component::language, Component::action_expert,
                                   Component::action_head, Component::unknown};

bool matches(const Rule& rule, const MatmulSite& site) {
  if (rule.component) return site.component == *rule.component;
  return ::fnmatch(rule.match.c_str(), site.path.c_str(), 0) == 0;
}

bool in_scope(const MatmulSite& site, const PlanRequest& request) {
  if (request.skip.contains(site.component)) return false;
  const bool is_attention = site.kind == SiteKind::attention || site.path.ends_with(".softmax");
  if (!is_attention || request.attention == AttentionScope::all) return true;
  return request.attention == AttentionScope::vision && site.component == Component::vision;
}

std::string describe(const Rule& rule) {
  return rule.component ? "component '" + std::string(name_of(*rule.component)) + "'" : "match '" + rule.match + "'";
}

formats::Methods read_methods(JsonFields& fields) {
  formats::Methods methods;
  const auto number = [&](const char* key, double least, double most) -> std::optional<double> {
    if (!fields.has(key)) return std::nullopt;
    const Json& value = fields.number_or_null(key);
    if (value.is_number() && value >= least && value <= most) return value.get<double>();
    fields.mistyped(key, "a number from " + std::to_string(static_cast<int>(least)) + " to " +
                             std::to_string(static_cast<int>(most)));
  };
  methods.rotate = fields.has("rotate") && fields.flag("rotate");
  methods.smooth = number("smooth", 0, 1);
  methods.clip = number("clip", 50, 100);
  return methods;
}

Rule read_rule(JsonFields fields) {
  Rule rule;
  const bool has_match = fields.has("match"), has_component = fields.has("component");
  const bool has_input = fields.has("input_fmt"), has_output = fields.has("output_fmt");
  const bool has_weight = fields.has("weight_fmt"), has_kv_cache = fields.has("kv_cache_fmt");
  const bool has_vector = fields.has("vector_fmt");
  const bool off = fields.has("off");
  const formats::Methods methods = read_methods(fields);
  const bool has_accumulator = fields.has("accumulator"), has_noise = fields.has("noise");
  fields.finish();
  if (has_match == has_component) fields.refuse("needs either 'match' or 'component'");
  if (has_match) {
    rule.match = fields.text("match");
  } else {
    rule.component = parse_component(fields.text("component"));
  }
  if (off) {
    if (!fields.flag("off") || has_input || has_output || has_weight || has_kv_cache || has_vector || has_accumulator ||
        has_noise || methods.any()) {
      fields.refuse("'off' must be true, and excludes formats");
    }
    return rule;
  }
  const bool leaves_products =
      !has_input && !has_weight && !has_output && !has_accumulator && !has_noise && !methods.any();
  if ((!leaves_products || (!has_kv_cache && !has_vector)) && (!has_input || !has_output)) {
    fields.refuse(
        "needs 'input_fmt' and 'output_fmt', which all other keys but 'kv_cache_fmt', 'vector_fmt' and 'off' go with");
  }
  SiteFormats formats;
  if (!leaves_products) {
    formats = {parse_format(fields.text("input_fmt")), parse_format(fields.text("output_fmt"))};
  }
  if (has_weight) formats.weight = parse_format(fields.text("weight_fmt"));
  if (has_kv_cache) formats.kv_cache = parse_format(fields.text("kv_cache_fmt"));
  if (has_vector) formats.vector = parse_format(fields.text("vector_fmt"));
  formats.methods = methods;
  if (has_accumulator) formats.accumulator = formats::parse_accumulator(fields.text("accumulator"));
  if (has_noise) formats.noise = formats::parse_noise(fields.text("noise"));
  check(formats);
  rule.formats = formats;
  return rule;
}

}  // namespace

Component parse_component(const std::string& name) {
  std::string known;
  std::vector<std::string> names;
  for (const Component component : components) {
    if (name == name_of(component)) return component;
    names.emplace_back(name_of(component));
    known += (known.empty() ? "" : ", ") + names.back();
  }
  throw std::invalid_argument("component '" + name + "' is unknown; known: " + known +
                              model::did_you_mean(name, names));
}

std::vector<Rule> one_rule(const SiteFormats& formats) { return {{"*", std::nullopt, formats}}; }

std::vector<Rule> read_rules(const std::filesystem::path& file) {
  try {
    const Json json = model::read_json(file);
    JsonFields fields(json, file.string());
    std::vector<Rule> rules;
    if (fields.has("about")) fields.any_object("about");  // for people, and what pi0 sweep left out
    if (fields.value("rules") == Json::array()) {  // pi0 sweep writes no rules if no layer keeps the error budget
      fields.finish();
      return rules;
    }
    for (JsonFields& rule : fields.objects("rules")) {
      try {
        rules.push_back(read_rule(rule));
      } catch (const model::JsonFileError&) {
        throw;  // already names the place
      } catch (const std::invalid_argument& error) {
        rule.refuse(error.what());
      }
    }
    fields.finish();
    return rules;
  } catch (const model::JsonFileError& error) {
    throw RulesError(error.what());
  }
}

QuantPlan make_plan(const model::SiteList& sites, const PlanRequest& request) {
  QuantPlan plan;
  std::vector<bool> used(request.rules.size(), false);
  const auto formats_of = [&](const MatmulSite& site) -> std::optional<SiteFormats> {
    if (!in_scope(site, request)) return std::nullopt;
    const auto rule =
        std::ranges::find_if(request.rules, [&](const Rule& candidate) { return matches(candidate, site); });
    if (rule == request.rules.end()) return std::nullopt;
    const bool is_for_it = site.kind != SiteKind::vector || !rule->formats || rule->formats->vector;
    if (is_for_it) used[static_cast<std::size_t>(rule - request.rules.begin())] = true;
    return rule->formats;
  };
  for (const MatmulSite& site : sites.all()) plan.matmuls.push_back(formats_of(site));
  for (const MatmulSite& site : sites.kv_caches()) {
    const std::optional<SiteFormats> formats = formats_of(site);
    plan.kv_caches.push_back(formats ? formats->kv_cache : std::nullopt);
  }
  for (const MatmulSite& site : sites.vectors()) {
    const std::optional<SiteFormats> formats = formats_of(site);
    plan.vectors.push_back(formats ? formats->vector : std::nullopt);
  }
  for (std::size_t i = 0; i < used.size(); ++i) {
    if (used[i]) continue;
    throw RulesError("rule " + std::to_string(i + 1) + ", " + describe(request.rules[i]) +
                     ", is the first match of no layer that takes its formats: an earlier rule has them all, or none "
                     "is there (pi0 list-layers --all)");
  }
  return plan;
}

}  // namespace pi0::quant
