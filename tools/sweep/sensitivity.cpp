#include "tools/sweep/sensitivity.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "protocol/files.h"
#include "tools/common/format_fields.h"
#include "tools/common/print.h"
#include "tools/common/results.h"
#include "tools/common/text_table.h"
#include "tools/common/version.h"
#include "tools/sweep/setting.h"
#include "tools/sweep/summary.h"

namespace pi0::tools {
namespace {

using Json = nlohmann::ordered_json;

bool is_below_floor(const Json& entry) { return entry["below_floor"] == true; }

void print_ranking(const std::vector<Json>& ranking) {
  constexpr std::size_t shown = 20;
  std::vector<std::vector<std::string>> lines = {{"rank", "RMSE", "std error", "rel error", "quantized alone"}};
  for (std::size_t i = 0; i < std::min(shown, ranking.size()); ++i) {
    const Json& entry = ranking[i];
    lines.push_back({std::to_string(i + 1), figure(entry["action_rmse"]) + (is_below_floor(entry) ? floor_mark : " "),
                     figure(entry["action_rmse_se"]), figure(entry["action_rel_rmse"]),
                     entry.value("layer", entry["component"].get<std::string>())});
  }
  print("{}", text_table(lines, LastColumn::names));
  if (ranking.size() > shown) print("     and {} less sensitive ones\n", ranking.size() - shown);
  const auto below = static_cast<std::size_t>(std::ranges::count_if(ranking, is_below_floor));
  if (below > 0) print("     {} of {} at or below the floor, in no particular order\n", below, ranking.size());
  print("{}", floor_note(ranking.front()));
}

// The layers that fit a budget, of a ranking with the most sensitive first. Layers at or below the floor cannot be told
// apart: they are in together or not at all.
class Budget {
 public:
  Budget(const SweepOptions& options, SweepRun& run, const std::vector<Json>& ranking)
      : options_(options), run_(run), ranking_(ranking) {}

  void find() {
    const std::size_t all = ranking_.size();
    const auto tied = static_cast<std::size_t>(std::ranges::count_if(ranking_, is_below_floor));
    std::size_t within = 0, beyond = all + 1;
    // Bisection over the number of layers, where each step runs the model.
    if (tied > 0 && !fits(tied)) {
      beyond = 1;
      too_many_ = tied;
    } else if (tied > 0) {
      within = tied;
    }
    while (within + 1 < beyond) {
      const std::size_t count = (within + beyond) / 2;
      (fits(count) ? within : beyond) = count;
    }
    count_ = within;
  }

  void write() const {
    const std::filesystem::path rules = options_.output / "rules.json";
    const Json left_out = layers_left_out();
    protocol::write_whole(rules, text_of(rules_file(left_out)));
    Json result = {{"budget", *options_.budget}, {"layers_of", ranking_.size()}};
    result.update(best_);
    result["left_out"] = left_out;
    protocol::write_whole(options_.output / "budget.json", text_of(result));
    print(stderr, "sweep: {} of {} layers within an action RMSE of {}: {:.4g}; rules in {}\n", count_, ranking_.size(),
          *options_.budget, action_rmse(best_), rules.string());
    if (left_out.empty()) return;
    print(stderr, "sweep: first left out, {}: {}\n", left_out.front()["layer"].get<std::string>(),
          left_out.front()["why"].get<std::string>());
  }

 private:
  Setting least_sensitive(std::size_t count) const {
    std::vector<NamedLayer> layers;
    for (std::size_t i = ranking_.size() - count; i < ranking_.size(); ++i) {
      layers.push_back({ranking_[i]["layer"].get<std::string>(), ranking_[i]["kind"].get<std::string>()});
    }
    return together(options_, layers);
  }

  bool fits(std::size_t count) {
    const Json entry = run_.entries_of({least_sensitive(count)}).front();
    const bool is_within = action_rmse(entry) <= *options_.budget;
    if (is_within) best_ = entry;
    if (!is_within) first_beyond_ = entry;
    return is_within;
  }

  // With the reason: what the action RMSE would be with one layer more.
  Json layers_left_out() const {
    Json left_out = Json::array();
    for (std::size_t i = ranking_.size() - count_; i-- > 0;) {
      const std::string beyond =
          fmt::format("an action RMSE of {:.4g}, above {}", action_rmse(first_beyond_), *options_.budget);
      const std::string why = too_many_ > 0 && is_below_floor(ranking_[i])
                                  ? fmt::format(
                                        "the {} layers at or below the floor cannot be told apart and together "
                                        "cause {}",
                                        too_many_, beyond)
                              : left_out.empty()
                                  ? fmt::format("with it and the {} less sensitive layers, {}", count_, beyond)
                                  : "more sensitive than one that is left out";
      left_out.push_back({{"layer", ranking_[i]["layer"]},
                          {"component", ranking_[i]["component"]},
                          {"action_rmse", ranking_[i]["action_rmse"]},
                          {"why", why}});
    }
    return left_out;
  }

  Json rules_file(const Json& left_out) const {
    Json rules = Json::array();
    for (const quant::Rule& rule : least_sensitive(count_).plan.rules) {
      Json fields = {{"match", rule.match}};
      if (rule.formats->kv_cache) {
        fields["kv_cache_fmt"] = name_of(*rule.formats->kv_cache);
      } else if (rule.formats->vector) {
        fields["vector_fmt"] = name_of(*rule.formats->vector);
      } else {
        fields.update(fields_of(*rule.formats));
      }
      rules.push_back(std::move(fields));
    }
    return {{"about",
             {{"made_by", version()},
              {"budget", *options_.budget},
              {"action_rmse", best_["action_rmse"]},
              {"layers", count_},
              {"layers_of", ranking_.size()},
              {"left_out", left_out}}},
            {"rules", rules}};
  }

  const SweepOptions& options_;
  SweepRun& run_;
  const std::vector<Json>& ranking_;
  std::size_t count_ = 0;     // of layers that fit
  std::size_t too_many_ = 0;  // layers below the floor, if they do not fit
  Json best_ = {{"layers", 0}, {"action_rmse", 0.0}};
  Json first_beyond_ = {{"action_rmse", nullptr}};
};

}  // namespace

void rank_sensitivity(const SweepOptions& options, SweepRun& run) {
  only_formats(options);  // before the weights are loaded
  std::vector<Json> ranking = run.entries_of(one_by_one(options, run.sites()));
  std::ranges::stable_sort(ranking, std::greater{}, action_rmse);
  protocol::write_whole(options.output / "sensitivity.json", text_of(ranking));
  protocol::write_whole(options.output / "sensitivity.csv", table_of(ranking));
  print_ranking(ranking);
  if (options.budget) {
    Budget budget(options, run, ranking);
    budget.find();
    budget.write();
  }
  print_next(options.output);
}

}  // namespace pi0::tools
