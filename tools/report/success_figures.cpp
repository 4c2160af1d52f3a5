// Figures of closed loops and of time: success, seconds of a sweep, stages of a request.
#include <fmt/format.h>

#include <algorithm>

#include "tools/report/figure_list.h"

namespace pi0::tools {
namespace {

std::string rate_text(const ReportRow& row) {
  const Number score = row.number("score_mean");
  return short_number(row.number("success_rate")) +
         interval_text(row.number("success_low"), row.number("success_high")) +
         (score ? ", score " + short_number(score) : "");
}

// A scene's success: "2 of 3, 0.667 (0.208 to 0.939)".
std::string episodes_text(const ReportRow& scene) {
  const Number successes = scene.number("n_success"), episodes = scene.number("n_episodes");
  return (successes && episodes ? fmt::format("{} of {}, ", *successes, *episodes) : "") + rate_text(scene);
}

Bar without_rate(const std::string& setting, const std::string& error) {
  constexpr std::size_t most_letters = 60;
  return {.name = setting, .value = {}, .text = error.empty() ? "no rate" : shortened(error, most_letters, Keep::head)};
}

Bar success_bar(const ReportRow& row, const std::string& setting, const std::string& text) {
  const std::string error = row.text("error");
  if (!row.number("success_rate") || !error.empty()) return without_rate(setting, error);
  return {.name = setting,
          .value = row.number("success_rate"),
          .text = text,
          .low = row.number("success_low"),
          .high = row.number("success_high")};
}

std::string p_text(const ReportRow& setting) {
  const Number p = setting.number("mcnemar_p");
  return p ? "p = " + short_number(p) : "";
}

// The success of every setting in one scene, or in all if `scene` is empty.
std::vector<Bar> success_bars(const ReportRows& settings, const ReportRows& scenes, const std::string& scene) {
  std::vector<Bar> bars;
  for (const ReportRow& setting : settings) {
    const std::string name = setting.text("setting");
    if (scene.empty()) {
      bars.push_back(success_bar(setting, name, rate_text(setting)));
      continue;
    }
    const ReportRows found = where(where(scenes, "setting", name), "scene", scene);
    bars.push_back(found.empty() ? without_rate(name, setting.text("error"))
                                 : success_bar(found[0], name, episodes_text(found[0])));
  }
  if (!bars.empty()) bars.front().heading = scene.empty() ? "all scenes" : "scene " + scene;
  return bars;
}

void add_seconds(FigureList& figures, const std::string& run) {
  BarChart chart{.bars = {}, .x_label = "seconds per observation"};
  bool has_any = false;
  for (const ReportRow& row : rows_of(figures.data, "settings", run)) {
    const Number seconds = row.number("inference_time_s"), count = row.number("n_observations");
    const Number each = seconds && count && *count > 0 ? Number(*seconds / *count) : Number();
    has_any |= each.has_value();
    chart.bars.push_back({.name = row.text("setting"), .value = each, .text = short_number(each)});
  }
  if (!has_any) return;
  figures.add(
      run, "seconds", "seconds per observation",
      {bar_chart(chart), note("Quantized and measured: simulated formats say nothing of the speed of real ones.")});
}

void add_stages(FigureList& figures, const nlohmann::ordered_json& run) {
  const ReportRows rows = rows_of(figures.data, "stages", run["name"]);
  if (rows.empty()) return;
  std::vector<StackedBar> bars;
  for (const std::string& mode : distinct(rows, "setting")) {
    StackedBar& bar = bars.emplace_back(StackedBar{spaced(mode), {}});
    for (const ReportRow& row : where(rows, "setting", mode)) {
      const Number seconds = row.number("seconds");
      bar.parts.emplace_back(row.text("stage"), seconds ? Number(*seconds * 1000) : Number());
    }
  }
  std::vector<Drawing> parts = {stacked_bars(bars, "ms")};
  for (const auto& [key, value] : run["meta"].items()) {
    if (key.starts_with("warning")) parts.push_back(note(fmt::format("{}: {}", key, value.dump())));
  }
  figures.add(run["name"], "stages", "milliseconds of a request by stage", parts);
}

}  // namespace

void add_success_figure(FigureList& figures, const std::string& run) {
  const ReportRows scenes = rows_of(figures.data, "success", run), settings = rows_of(figures.data, "settings", run);
  if (scenes.empty()) return;
  const std::vector<std::string> names = distinct(scenes, "scene");
  BarChart chart{.bars = {}, .x_label = "success rate", .most = 1};
  if (names.size() > 1) chart.bars = success_bars(settings, scenes, "");
  for (const std::string& scene : names)
    std::ranges::copy(success_bars(settings, scenes, scene), std::back_inserter(chart.bars));
  for (std::size_t i = 0; i < settings.size(); ++i) {
    if (chart.bars[i].value) chart.bars[i].tag = p_text(settings[i]);
  }
  const bool has_p = have(settings, "mcnemar_p"), has_interval = have(scenes, "success_low");
  const std::string words = fmt::format("{}{}", has_interval ? "Whiskers: Wilson's 95 % interval of the rate. " : "",
                                        has_p ? "p: McNemar's exact test over the same episodes." : "");
  figures.add(run, "success", "success in simulation", {bar_chart(chart), note(words)});
}

void add_time_figures(FigureList& figures, const nlohmann::ordered_json& run) {
  add_seconds(figures, run["name"]);
  add_stages(figures, run);
}

}  // namespace pi0::tools
