#include "tools/sweep/sensitivity.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "protocol/files.h"
#include "tools/common/print.h"
#include "tools/common/results.h"
#include "tools/sweep/setting.h"

namespace pi0::tools {
namespace {

using Json = nlohmann::ordered_json;

void print_ranking(const std::vector<Json>& ranking) {
  constexpr std::size_t shown = 20;
  for (std::size_t i = 0; i < std::min(shown, ranking.size()); ++i) {
    const Json& entry = ranking[i];
    print("{:4} {:.3e} {}\n", i + 1, action_rmse(entry), entry.value("layer", entry["component"].get<std::string>()));
  }
  if (ranking.size() > shown) print("     and {} less sensitive ones\n", ranking.size() - shown);
}

// The last `count` layers of the ranking, all quantized.
Setting least_sensitive(const SweepOptions& options, const std::vector<Json>& ranking, std::size_t count) {
  std::vector<std::string> layers;
  for (std::size_t i = ranking.size() - count; i < ranking.size(); ++i) {
    layers.push_back(ranking[i]["layer"].get<std::string>());
  }
  return together(options, layers);
}

Json rules_of(const Setting& setting, quant::FormatPair formats) {
  Json rules = Json::array();
  for (const quant::Rule& rule : setting.plan.rules) {
    rules.push_back({{"match", rule.match},
                     {"input_fmt", quant::name_of(formats.input)},
                     {"output_fmt", quant::name_of(formats.output)}});
  }
  return {{"rules", rules}};
}

// Bisection over the number of layers, where each step runs the model.
void keep_budget(const SweepOptions& options, SweepRun& run, const std::vector<Json>& ranking) {
  std::size_t within = 0, beyond = ranking.size() + 1;
  Json best = {{"layers", 0}, {"action_rmse", 0.0}};
  while (within + 1 < beyond) {
    const std::size_t count = (within + beyond) / 2;
    const Json entry = run.entries_of({least_sensitive(options, ranking, count)}).front();
    if (action_rmse(entry) <= *options.budget) {
      within = count;
      best = entry;
    } else {
      beyond = count;
    }
  }
  const std::filesystem::path rules = options.output / "rules.json";
  protocol::write_whole(rules, text_of(rules_of(least_sensitive(options, ranking, within), only_pair(options))));
  Json result = {{"budget", *options.budget}, {"layers_of", ranking.size()}};
  result.update(best);
  protocol::write_whole(options.output / "budget.json", text_of(result));
  print(stderr, "sweep: {} of {} layers within an action RMSE of {}: {:.4g}; rules in {}\n", within, ranking.size(),
        *options.budget, action_rmse(best), rules.string());
}

}  // namespace

void rank_sensitivity(const SweepOptions& options, SweepRun& run) {
  only_pair(options);  // before the weights are loaded
  std::vector<Json> ranking = run.entries_of(one_by_one(options, run.sites()));
  std::ranges::stable_sort(ranking, std::greater{}, action_rmse);
  protocol::write_whole(options.output / "sensitivity.json", text_of(ranking));
  protocol::write_whole(options.output / "sensitivity.csv", table_of(ranking));
  print_ranking(ranking);
  if (options.budget) keep_budget(options, run, ranking);
}

}  // namespace pi0::tools
