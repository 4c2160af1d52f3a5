#include "tools/sweep/setting.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <utility>

#include "model/vector_site.h"
#include "tools/common/format_fields.h"
#include "tools/common/results.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

bool has_folder(const std::vector<Setting>& settings, const std::string& folder) {
  return std::ranges::any_of(settings, [&](const Setting& setting) { return setting.folder == folder; });
}

// Whether the formats can change what a linear or an attention computes.
bool changes(const quant::SiteFormats& formats, model::SiteKind kind) {
  const quant::NumberFormat float32;
  const bool keeps_values = formats.input == float32 && formats.output == float32 && !formats.noise;
  if (kind == model::SiteKind::attention) return !keeps_values || orders_attention(formats.accumulator);
  return !keeps_values || formats.accumulator.is_ordered() || formats.weight != float32 || formats.methods.any();
}

std::vector<Setting> rules_settings(const SweepOptions& options) {
  std::vector<Setting> settings;
  QuantOptions quant = options.quant;
  for (const fs::path& rules : options.rules) {
    quant.rules = rules;
    const std::string folder = rules_folder(rules);
    if (has_folder(settings, folder)) {
      throw std::invalid_argument(
          fmt::format("--rules: two files are named {}; their results would share a folder", rules.stem().string()));
    }
    settings.push_back(
        {folder, {{"input_fmt", nullptr}, {"output_fmt", nullptr}, {"rules", rules.string()}}, plan_request(quant)});
  }
  return settings;
}

std::vector<Setting> format_settings(const SweepOptions& options) {
  std::vector<Setting> settings;
  quant::PlanRequest plan = plan_request(options.quant);
  for (const quant::SiteFormats& formats : options.formats.settings()) {
    plan.rules = quant::one_rule(formats);
    check_methods(plan, options.quant);
    if (has_folder(settings, folder_of(formats))) {
      throw std::invalid_argument("'" + setting_name(fields_of(formats)) +
                                  "' is asked for twice; its results would share a folder");
    }
    settings.push_back({folder_of(formats), fields_of(formats), plan});
  }
  return settings;
}

}  // namespace

std::vector<Setting> shard_settings(const SweepOptions& options) {
  std::vector<Setting> all = options.rules.empty() ? format_settings(options) : rules_settings(options);
  std::vector<Setting> own;
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].place = i;
    all[i].of = all.size();
    if (i % options.shard.of == options.shard.index - 1) own.push_back(std::move(all[i]));
  }
  return own;
}

quant::SiteFormats only_formats(const SweepOptions& options) {
  const std::vector<quant::SiteFormats> settings = options.formats.settings();
  if (settings.size() == 1) return settings.front();
  throw std::invalid_argument(
      "--sensitivity ranks under one setting: give --input-fmts, --weight-fmts, --output-fmts and --accumulators one "
      "value each");
}

quant::Rule rule_of(const NamedLayer& layer, const quant::SiteFormats& formats) {
  quant::SiteFormats own;
  if (layer.kind == "kv_cache") {
    own.kv_cache = formats.kv_cache;
  } else if (layer.kind == "vector") {
    own.vector = formats.vector;
  } else {
    own = formats;
    own.kv_cache.reset();
    own.vector.reset();
  }
  return {layer.path, std::nullopt, own};
}

std::vector<Setting> one_by_one(const SweepOptions& options, const model::SiteList& sites) {
  const quant::SiteFormats formats = only_formats(options);
  quant::PlanRequest all = plan_request(options.quant);
  all.rules = quant::one_rule(formats);
  check_methods(all, options.quant);
  const quant::QuantPlan plan = quant::make_plan(sites, all);
  std::vector<Setting> settings;
  const auto add_layer = [&](const model::MatmulSite& site) {
    Setting setting{options.sensitivity + "/" + site.path, {}, all};
    setting.names = {
        {"layer", site.path}, {"component", model::name_of(site.component)}, {"kind", model::name_of(site.kind)}};
    setting.plan.rules = {rule_of({site.path, std::string(model::name_of(site.kind))}, formats)};
    setting.names.update(fields_of(*setting.plan.rules.front().formats));
    settings.push_back(std::move(setting));
  };
  const auto add_component = [&](const model::MatmulSite& site) {
    const std::string component(model::name_of(site.component));
    Setting setting{options.sensitivity + "/" + component, {{"component", component}}, all};
    if (has_folder(settings, setting.folder)) return;
    setting.plan.rules = {{"", site.component, formats}};
    setting.names.update(fields_of(formats));
    settings.push_back(std::move(setting));
  };
  const bool by_layer = options.sensitivity == "layers";
  std::size_t index = 0;
  for (const model::MatmulSite& site : sites.all()) {
    const std::optional<quant::SiteFormats>& own = plan.matmuls[index++];
    if (!own || site.flop == 0 || (by_layer && !changes(*own, site.kind))) continue;
    by_layer ? add_layer(site) : add_component(site);
  }
  index = 0;
  for (const model::MatmulSite& site : sites.kv_caches()) {
    if (by_layer && plan.kv_caches[index++]) add_layer(site);
  }
  index = 0;
  for (const model::MatmulSite& site : sites.vectors()) {
    const bool is_used = dynamic_cast<const model::VectorSite&>(site).uses > 0;
    if (by_layer && plan.vectors[index++] && is_used) add_layer(site);
  }
  return settings;
}

Setting together(const SweepOptions& options, const std::vector<NamedLayer>& layers) {
  const quant::SiteFormats formats = only_formats(options);
  Setting setting{fmt::format("budget/{}", layers.size()), {{"layers", layers.size()}}, plan_request(options.quant)};
  setting.names.update(fields_of(formats));
  setting.plan.rules.clear();
  for (const NamedLayer& layer : layers) setting.plan.rules.push_back(rule_of(layer, formats));
  return setting;
}

}  // namespace pi0::tools
