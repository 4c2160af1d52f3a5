// Figures of components: their errors under every setting, and two settings side by side.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tools/report/figure_list.h"

namespace pi0::tools {
namespace {

struct ComponentColumn {
  std::string kind, component;
};

constexpr std::pair<const char*, const char*> kind_names[] = {
    {"linear", "Linears"}, {"attention", "Attention"}, {"kv_cache", "KV cache"}, {"vector", "Vectors"}};

std::vector<ComponentColumn> component_columns(const ReportRows& cells) {
  std::vector<ComponentColumn> columns;
  for (const auto& [kind, name] : kind_names) {
    for (const std::string& component : distinct(where(cells, "kind", kind), "component"))
      columns.push_back({kind, component});
  }
  return columns;
}

Number component_value(const ReportRows& of_setting, const ComponentColumn& column, const char* measure) {
  const ReportRows found = where(where(of_setting, "kind", column.kind), "component", column.component);
  return found.empty() ? Number() : found[0].number(measure);
}

// Their names as columns, and the groups above.
void name_columns(Matrix& map, const std::vector<ComponentColumn>& columns) {
  for (const auto& [kind, component] : columns) {
    const std::string group = std::ranges::find(kind_names, kind, &std::pair<const char*, const char*>::first)->second;
    if (map.groups.empty() || map.groups.back().first != group) map.groups.emplace_back(group, 0);
    ++map.groups.back().second;
    map.columns.push_back(spaced(component));
  }
}

const std::vector<Measure> component_measures = {{"mean_rel_rmse", "Mean relative RMSE"}, {"mean_rmse", "Mean RMSE"}};

MatrixCell ratio_cell(const Number& first, const Number& second) {
  if (!first || !second) return {.text = "–", .fill = hatched};
  if (*first == 0 && *second == 0) return {.text = "both 0"};
  if (*first == 0 || *second == 0) return {.text = short_number(first) + " | " + short_number(second)};
  const double ratio = *second / *first;
  const Rgb colour = colour_at("diverging", 0.5 + std::log2(ratio) / 4);
  return {.text = "×" + short_number(ratio), .fill = css(colour), .ink = ink_on(colour)};
}

struct ComparedSetting {
  std::string run, setting;
};

Number action_error_of(const ReportData& data, const ComparedSetting& place) {
  const ReportRows rows = where(rows_of(data, "settings", place.run), "setting", place.setting);
  return rows.empty() ? Number() : rows[0].number("action_rmse");
}

// As the page shows them: the coarsest come last.
std::vector<ComparedSetting> compared(const ReportData& data) {
  std::vector<ComparedSetting> all;
  for (const auto& run : data.runs) {
    for (const std::string& setting : distinct(rows_of(data, "components", run["name"]), "setting")) {
      all.insert(all.begin(), {run["name"], setting});
    }
  }
  return all;
}

}  // namespace

void add_component_figure(FigureList& figures, const std::string& run) {
  const ReportRows rows = rows_of(figures.data, "settings", run), cells = rows_of(figures.data, "components", run);
  if (cells.empty()) return;
  const Measure measure = measure_of(cells, component_measures);
  const LogScale scale(numbers(cells, measure.column)), action_scale(numbers(rows, "action_rmse"));
  const auto columns = component_columns(cells);
  Matrix map{.corner = "input / output format", .groups = {}, .columns = {}, .rows = {}};
  const bool has_actions = have(rows, "action_rmse");
  if (has_actions) map.groups.emplace_back("Actions", 1), map.columns.emplace_back("RMSE");
  name_columns(map, columns);
  for (const ReportRow& row : rows) {
    auto& line = map.rows.emplace_back(row.text("setting"), std::vector<MatrixCell>{}).second;
    if (has_actions) line.push_back(heat_cell(row.number("action_rmse"), action_scale));
    const ReportRows own = where(cells, "setting", row.text("setting"));
    for (const auto& column : columns) line.push_back(heat_cell(component_value(own, column, measure.column), scale));
  }
  figures.add(
      run, "components", "mean error of each component's layers",
      {scale_bar(scale, measure.name), has_actions ? scale_bar(action_scale, "Action RMSE") : Drawing(), matrix(map)});
}

void add_comparison(FigureList& figures) {
  const std::vector<ComparedSetting> settings = compared(figures.data);
  if (settings.size() != 2) return;
  const auto& [first, second] = std::pair(settings[0], settings[1]);
  const auto cells_of = [&](const ComparedSetting& place) {
    return where(rows_of(figures.data, "components", place.run), "setting", place.setting);
  };
  const ReportRows one = cells_of(first), other = cells_of(second);
  const auto columns = component_columns(one);
  Matrix map{.corner = "", .groups = {{"Actions", 1}}, .columns = {"RMSE"}, .rows = {}, .row_height = 24};
  name_columns(map, columns);
  for (const Measure& measure : component_measures) {
    auto& line = map.rows.emplace_back(measure.name, std::vector<MatrixCell>{}).second;
    const bool is_actions_too = std::string_view(measure.column) == "mean_rmse";
    line.push_back(is_actions_too
                       ? ratio_cell(action_error_of(figures.data, first), action_error_of(figures.data, second))
                       : MatrixCell{.text = "–", .fill = hatched});
    for (const auto& column : columns) {
      line.push_back(
          ratio_cell(component_value(one, column, measure.column), component_value(other, column, measure.column)));
    }
  }
  const std::string both = first.run == second.run ? "" : fmt::format(" ({}; {})", second.run, first.run);
  figures.add(
      "", "comparison", "two settings side by side",
      {heading(fmt::format("{} against {}{}", second.setting, first.setting, both)), matrix(map),
       note("×: how many times larger the first one's error is; orange: larger, blue: smaller, full colour from four "
            "times on.")});
}

}  // namespace pi0::tools
