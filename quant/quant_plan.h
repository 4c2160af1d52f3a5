// Which sites are rounded to which formats: a pure function of a model's sites and a request.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/matmul_site.h"
#include "quant/format.h"

namespace pi0::quant {

class Calibration;

// Names the file, the rule, what was found and what was expected.
class RulesError : public std::runtime_error {
  using runtime_error::runtime_error;
};

enum class AttentionScope {
  none,    // no attention, as pi0-quant's serve_quant.py
  vision,  // SigLIP's, which openpi runs as scaled_dot_product_attention
  all
};

// Selects sites by a glob over their path (* ? [abc] as in a shell; * matches dots too) or by component, and sets their
// formats. Without formats, the sites are not quantized.
struct Rule {
  std::string match;
  std::optional<model::Component> component;  // instead of match
  std::optional<SiteFormats> formats;
};

struct PlanRequest {
  std::vector<Rule> rules;  // the first match decides; without one, a site is not quantized
  AttentionScope attention = AttentionScope::all;
  std::set<model::Component> skip = {};                 // not quantized, attention included
  std::shared_ptr<const Calibration> calibration = {};  // for methods and static scales; null: none
};

// One entry per site, in the sites' order; none: no hook.
struct QuantPlan {
  std::vector<std::optional<SiteFormats>> matmuls;     // of SiteList::all()
  std::vector<std::optional<NumberFormat>> kv_caches;  // of SiteList::kv_caches()
  std::vector<std::optional<NumberFormat>> vectors;    // of SiteList::vectors()
};

std::vector<Rule> one_rule(const SiteFormats& formats);           // that matches every site
std::vector<Rule> read_rules(const std::filesystem::path& file);  // throws RulesError

// Throws RulesError if a rule is the first match of no site that attention and skip allow.
QuantPlan make_plan(const model::SiteList& sites, const PlanRequest& request);

model::Component parse_component(const std::string& name);  // throws std::invalid_argument that lists them

}  // namespace pi0::quant
