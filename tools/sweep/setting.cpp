#include "tools/sweep/setting.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <utility>

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

std::vector<Setting> pair_settings(const SweepOptions& options) {
  std::vector<Setting> settings;
  QuantOptions quant = options.quant;
  for (const auto& [input, output] : options.formats.pairs()) {
    quant.input_fmt = input;
    quant.output_fmt = output;
    settings.push_back(
        {pair_folder(input, output), {{"input_fmt", input}, {"output_fmt", output}}, plan_request(quant)});
  }
  return settings;
}

}  // namespace

std::vector<Setting> shard_settings(const SweepOptions& options) {
  std::vector<Setting> all = options.rules.empty() ? pair_settings(options) : rules_settings(options);
  std::vector<Setting> own;
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].place = i;
    all[i].of = all.size();
    if (i % options.shard.of == options.shard.index - 1) own.push_back(std::move(all[i]));
  }
  return own;
}

quant::FormatPair only_pair(const SweepOptions& options) {
  const auto pairs = options.formats.pairs();
  if (pairs.size() == 1) return {quant::parse_format(pairs[0].first), quant::parse_format(pairs[0].second)};
  throw std::invalid_argument(
      "--sensitivity ranks under one pair of formats: give --input-fmts and --output-fmts one each");
}

std::vector<Setting> one_by_one(const SweepOptions& options, const model::SiteList& sites) {
  const quant::FormatPair formats = only_pair(options);
  quant::PlanRequest all = plan_request(options.quant);
  all.rules = quant::one_pair(formats);
  const quant::QuantPlan plan = quant::make_plan(sites, all);
  std::vector<Setting> settings;
  std::size_t index = 0;
  for (const model::MatmulSite& site : sites.all()) {
    if (!plan[index++] || site.flop == 0) continue;
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
    setting.names["input_fmt"] = quant::name_of(formats.input);
    setting.names["output_fmt"] = quant::name_of(formats.output);
    settings.push_back(std::move(setting));
  }
  return settings;
}

Setting together(const SweepOptions& options, const std::vector<std::string>& layers) {
  const quant::FormatPair formats = only_pair(options);
  Setting setting{fmt::format("budget/{}", layers.size()),
                  {{"layers", layers.size()},
                   {"input_fmt", quant::name_of(formats.input)},
                   {"output_fmt", quant::name_of(formats.output)}},
                  plan_request(options.quant)};
  setting.plan.rules.clear();
  for (const std::string& layer : layers) setting.plan.rules.push_back({layer, std::nullopt, formats});
  return setting;
}

}  // namespace pi0::tools
