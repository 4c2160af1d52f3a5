#include "quant/quant_plan.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

namespace pi0::quant {
namespace {

using Json = nlohmann::json;
using model::Component;
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
  if (site.kind == SiteKind::linear || request.attention == AttentionScope::all) return true;
  return request.attention == AttentionScope::vision && site.component == Component::vision;
}

std::string describe(const Rule& rule) {
  return rule.component ? "component '" + std::string(name_of(*rule.component)) + "'"
                        : "match '" + rule.match + "'";
}

Rule read_rule(const Json& json) {
  Rule rule;
  const auto text = [&](const char* key) {
    if (!json[key].is_string()) {
      throw std::invalid_argument(std::string("'") + key + "' is " + json[key].dump() +
                                  ", expected text");
    }
    return json[key].get<std::string>();
  };
  if (!json.is_object()) throw std::invalid_argument("is " + json.dump() + ", expected an object");
  for (const auto& [key, value] : json.items()) {
    constexpr std::array known = {"match", "component", "input_fmt", "output_fmt", "off"};
    if (std::ranges::find(known, key) == known.end()) {
      throw std::invalid_argument("has the unknown key '" + key + "'");
    }
  }
  if (json.contains("match") == json.contains("component")) {
    throw std::invalid_argument("needs either 'match' or 'component'");
  }
  if (json.contains("match")) {
    rule.match = text("match");
  } else {
    rule.component = parse_component(text("component"));
  }
  const bool has_formats = json.contains("input_fmt") && json.contains("output_fmt");
  const bool has_any_format = json.contains("input_fmt") || json.contains("output_fmt");
  if (json.contains("off")) {
    if (json["off"] != true || has_any_format) {
      throw std::invalid_argument("'off' must be true and stand without formats");
    }
    return rule;
  }
  if (!has_formats) throw std::invalid_argument("needs 'input_fmt' and 'output_fmt', or 'off'");
  rule.formats = FormatPair{parse_format(text("input_fmt")), parse_format(text("output_fmt"))};
  return rule;
}

}  // namespace

Component parse_component(const std::string& name) {
  std::string known;
  for (const Component component : components) {
    if (name == name_of(component)) return component;
    known += (known.empty() ? "" : ", ") + std::string(name_of(component));
  }
  throw std::invalid_argument("component '" + name + "' is unknown; known: " + known);
}

std::vector<Rule> one_pair(FormatPair formats) { return {{"*", std::nullopt, formats}}; }

std::vector<Rule> read_rules(const std::filesystem::path& file) {
  std::ifstream stream(file);
  if (!stream) throw RulesError(file.string() + ": cannot be opened");
  Json json;
  try {
    json = Json::parse(stream);
  } catch (const Json::exception& error) {
    throw RulesError(file.string() + ": is not JSON: " + error.what());
  }
  if (!json.is_object() || json.size() != 1 || !json.contains("rules") || !json["rules"].is_array() ||
      json["rules"].empty()) {
    throw RulesError(file.string() + R"(: expected {"rules": [...]} with at least one rule)");
  }
  std::vector<Rule> rules;
  for (const Json& rule : json["rules"]) {
    try {
      rules.push_back(read_rule(rule));
    } catch (const std::invalid_argument& error) {
      throw RulesError(file.string() + ": rule " + std::to_string(rules.size() + 1) + ": " +
                       error.what());
    }
  }
  return rules;
}

QuantPlan make_plan(const model::SiteList& sites, const PlanRequest& request) {
  QuantPlan plan;
  std::vector<bool> used(request.rules.size(), false);
  for (const MatmulSite& site : sites.all()) {
    plan.emplace_back();
    if (!in_scope(site, request)) continue;
    const auto rule = std::ranges::find_if(
        request.rules, [&](const Rule& candidate) { return matches(candidate, site); });
    if (rule == request.rules.end()) continue;
    used[static_cast<std::size_t>(rule - request.rules.begin())] = true;
    plan.back() = rule->formats;
  }
  for (std::size_t i = 0; i < used.size(); ++i) {
    if (used[i]) continue;
    throw RulesError("rule " + std::to_string(i + 1) + ", " + describe(request.rules[i]) +
                     ", is the first match of no layer; see list-layers");
  }
  return plan;
}

}  // namespace pi0::quant
