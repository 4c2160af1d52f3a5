// The settings of a sweep: one by one, the ways in which it quantizes the model.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/matmul_site.h"
#include "quant/quant_plan.h"
#include "tools/sweep/sweep_options.h"

namespace pi0::tools {

struct Setting {
  std::string folder;            // of its results, in --output
  nlohmann::ordered_json names;  // what it is, first in its entry
  quant::PlanRequest plan;
  std::size_t place = 0;  // in the sweep
  std::size_t of = 1;     // settings of the sweep
};

// The shard's settings: of all rules files or pairs of formats every --shard N-th, from the I-th on. Throws
// std::invalid_argument for two rules files of one name, and what quant::read_rules() throws.
std::vector<Setting> shard_settings(const SweepOptions& options);

// The formats of --sensitivity; throws std::invalid_argument when there are several settings.
quant::SiteFormats only_formats(const SweepOptions& options);

// A layer of a kind as statistics name it.
struct NamedLayer {
  std::string path, kind;
};

// One layer under its part of the formats: a KV cache and a vector operation have one, others have all but these.
quant::Rule rule_of(const NamedLayer& layer, const quant::SiteFormats& formats);

// For --sensitivity: a setting per site of all kinds, or per component, that has a part in the actions.
std::vector<Setting> one_by_one(const SweepOptions& options, const model::SiteList& sites);

// For --budget: these layers together, under the one pair.
Setting together(const SweepOptions& options, const std::vector<NamedLayer>& layers);

}  // namespace pi0::tools
