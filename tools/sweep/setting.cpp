#include "tools/sweep/setting.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <utility>

#include "tools/common/format_fields.h"
#include "tools/common/results.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

bool has_folder(const std::vector<Setting>& settings, const std::string& folder) {
  return std::ranges::any_of(settings, [&](const Setting& setting) { return setting.folder == folder; });
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
      "--sensitivity ranks under one setting: give --input-fmts, --weight-fmts and --output-fmts one format each");
}

std::vector<Setting> one_by_one(const SweepOptions& options, const model::SiteList& sites) {
  const quant::SiteFormats formats = only_formats(options);
  quant::PlanRequest all = plan_request(options.quant);
  all.rules = quant::one_rule(formats);
  const quant::QuantPlan plan = quant::make_plan(sites, all);
  std::vector<Setting> settings;
  std::size_t index = 0;
  for (const model::MatmulSite& site : sites.all()) {
    if (!plan.matmuls[index++] || site.flop == 0) continue;
    const std::string component(model::name_of(site.component));
    Setting setting{options.sensitivity, {}, all};
    if (options.sensitivity == "layers") {
      setting.folder += "/" + site.path;
      setting.names = {{"layer", site.path}, {"component", component}, {"kind", model::name_of(site.kind)}};
      setting.plan.rules = {{site.path, std::nullopt, formats}};
    } else {
      setting.folder += "/" + component;
      setting.names = {{"component", component}};
      setting.plan.rules = {{"", site.component, formats}};
      if (has_folder(settings, setting.folder)) continue;
    }
    setting.names.update(fields_of(formats));
    settings.push_back(std::move(setting));
  }
  return settings;
}

Setting together(const SweepOptions& options, const std::vector<std::string>& layers) {
  const quant::SiteFormats formats = only_formats(options);
  Setting setting{fmt::format("budget/{}", layers.size()), {{"layers", layers.size()}}, plan_request(options.quant)};
  setting.names.update(fields_of(formats));
  setting.plan.rules.clear();
  for (const std::string& layer : layers) setting.plan.rules.push_back({layer, std::nullopt, formats});
  return setting;
}

}  // namespace pi0::tools
