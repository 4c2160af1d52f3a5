// Figures of actions: over a chunk, by joint, by step, and of the velocity by denoise step.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "tools/report/figure_list.h"

namespace pi0::tools {
namespace {

using Texts = std::vector<std::string>;

// The names of the action's dimensions; numbers where the robot has no names.
Texts joint_names(const ReportRows& rows) {
  Texts names;
  for (const ReportRow& row : rows) {
    const auto place = static_cast<std::size_t>(row.number("dimension").value_or(0));
    if (row.number("dimension") && place >= names.size()) names.resize(place + 1);
    if (row.at("joint").is_string()) names[place] = row.text("joint");
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i].empty()) names[i] = fmt::format("{}", i);
  }
  return names;
}

Matrix chunk_map(const ReportRows& cells, const Texts& joints, const LogScale& scale) {
  Matrix map{.corner = "",
             .groups = {},
             .columns = {},
             .rows = {},
             .row_height = std::clamp(300 / static_cast<double>(joints.size()), 9.0, 24.0),
             .column_names = ColumnNames::some,
             .x_label = "step of the chunk"};
  for (const std::string& joint : joints) map.rows.emplace_back(joint, std::vector<MatrixCell>{});
  for (const ReportRow& row : cells) {
    const auto step = static_cast<std::size_t>(*row.number("step"));
    auto& line = map.rows[static_cast<std::size_t>(*row.number("dimension"))].second;
    if (line.size() <= step) line.resize(step + 1);
    const MatrixCell cell = heat_cell(row.number("rmse"), scale);
    line[step] = {.text = "", .fill = cell.fill};
    while (map.columns.size() <= step) map.columns.push_back(fmt::format("{}", map.columns.size()));
  }
  return map;
}

void add_chunk(FigureList& figures, const std::string& run, const std::string& setting, const ReportRows& rows) {
  ReportRows cells = where(rows, "setting", setting);
  std::erase_if(cells, [](const ReportRow& row) { return !row.number("step") || !row.number("dimension"); });
  if (cells.empty()) return;
  const bool is_robots = have(rows_of(figures.data, "settings", run), "action_rmse_robot");
  const LogScale scale(numbers(cells, "rmse"));
  const std::string label = is_robots ? "Action RMSE in the robot's units" : "Action RMSE as the model gives them";
  figures.add(run, "chunk_" + setting, setting + ", error of the actions over the chunk",
              {scale_bar(scale, label), matrix(chunk_map(cells, joint_names(cells), scale))});
}

// A line per setting, over the numbers of a column.
LineChart chart_over(const char* column, const std::string& x_label, const ReportRows& rows, const Texts& settings) {
  LineChart chart{.lines = {}, .x_label = x_label, .y_label = "RMSE"};
  for (const std::string& setting : settings) {
    auto& line = chart.lines.emplace_back();
    for (const ReportRow& row : where(rows, "setting", setting)) {
      if (const Number rmse = row.number("rmse")) line.push_back({*row.number(column), *rmse});
    }
  }
  return chart;
}

struct LineGroup {
  std::string name;  // empty: of all settings
  Texts settings;
};

// All in one figure where there are looks for them; else one for each format of outputs.
std::vector<LineGroup> line_groups(const ReportData& data, const std::string& run, const Texts& settings) {
  if (settings.size() <= look_count()) return {{"", settings}};
  std::map<std::string, Texts> groups;
  for (const ReportRow& row : rows_of(data, "settings", run)) {
    const std::string setting = row.text("setting"), output = row.text("output_fmt");
    Texts& group = groups[output.empty() ? "rules" : output];
    const bool is_shown = std::ranges::find(settings, setting) != settings.end();
    if (is_shown && group.size() < look_count()) group.push_back(setting);
  }
  std::vector<LineGroup> list;
  for (auto& [name, group] : groups) {
    if (!group.empty()) list.push_back({"_" + name, group});
  }
  return list;
}

void add_lines(FigureList& figures, const std::string& run, const ReportRows& rows, const LineGroup& group) {
  const Drawing names = legend(group.settings, LegendOf::lines);
  const ReportRows by_joint = where(rows, "step", nullptr), by_step = where(rows, "dimension", nullptr);
  const bool has_names = !distinct(by_joint, "joint").empty();
  LineChart joints = chart_over("dimension", has_names ? "joint" : "dimension", by_joint, group.settings);
  joints.x_names = joint_names(by_joint);
  figures.add(run, "joints" + group.name, "error of the actions by joint, over all steps", {names, line_chart(joints)});
  figures.add(run, "steps" + group.name, "error of the actions by step, over all joints",
              {names, line_chart(chart_over("step", "step of the chunk", by_step, group.settings))});
  const ReportRows velocity = rows_of(figures.data, "velocity", run);
  if (velocity.empty()) return;
  figures.add(run, "velocity" + group.name, "error of the velocity by denoise step",
              {names, line_chart(chart_over("denoise_step", "denoise step", velocity, group.settings))});
}

}  // namespace

void add_action_figures(FigureList& figures, const std::string& run) {
  const ReportRows rows = rows_of(figures.data, "actions", run);
  ReportRows above_zero = rows;
  std::erase_if(above_zero, [](const ReportRow& row) { return row.number("rmse").value_or(0) <= 0; });
  const Texts settings = distinct(above_zero, "setting");
  if (settings.empty()) return;
  for (const std::string& setting : settings) add_chunk(figures, run, setting, rows);
  for (const LineGroup& group : line_groups(figures.data, run, settings)) add_lines(figures, run, rows, group);
}

}  // namespace pi0::tools
