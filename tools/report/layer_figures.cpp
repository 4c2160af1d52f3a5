// Figures of layers: by block and matrix, by depth, what each does to the actions.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "tools/report/figure_list.h"

namespace pi0::tools {
namespace {

using Texts = std::vector<std::string>;

// As they follow each other in a block; others come last.
Texts ordered_matrices(const ReportRows& rows) {
  const auto order = looks().at("matrices").get<Texts>();
  Texts names = distinct(rows, "matrix");
  std::ranges::stable_sort(names, {}, [&](const std::string& name) { return std::ranges::find(order, name); });
  return names;
}

const Measure layer_measures[] = {{"rel_rmse", "Relative RMSE"}, {"rmse", "RMSE"}};

struct LayerRows {
  ReportRows all, called, in_blocks;
  Measure measure;
};

LayerRows layers_of(const ReportRows& of_run, const std::string& setting, const Measure& measure) {
  LayerRows rows{.all = where(of_run, "setting", setting), .called = {}, .in_blocks = {}, .measure = measure};
  for (const ReportRow& row : rows.all) {
    if (row.at("n_calls") == 0) continue;
    rows.called.push_back(row);
    if (row.number("block")) rows.in_blocks.push_back(row);
  }
  return rows;
}

Matrix block_map(const ReportRows& own, const Measure& measure, const LogScale& scale) {
  Matrix map{.corner = "", .groups = {}, .columns = ordered_matrices(own), .rows = {}, .row_height = 15};
  std::map<double, std::vector<MatrixCell>> blocks;
  for (const ReportRow& row : own) {
    auto& cells = blocks[*row.number("block")];
    cells.resize(map.columns.size(), heat_cell({}, scale));
    const auto column = std::ranges::find(map.columns, row.text("matrix")) - map.columns.begin();
    cells[static_cast<std::size_t>(column)] = heat_cell(row.number(measure.column), scale);
  }
  for (auto& [block, cells] : blocks) map.rows.emplace_back(fmt::format("block {}", block), std::move(cells));
  return map;
}

void add_blocks(FigureList& figures, const std::string& run, const std::string& setting, const LayerRows& rows) {
  if (rows.in_blocks.empty()) return;
  const LogScale scale(numbers(rows.in_blocks, rows.measure.column));
  std::vector<Drawing> parts = {scale_bar(scale, rows.measure.name)};
  for (const std::string& component : distinct(rows.in_blocks, "component")) {
    parts.push_back(heading(spaced(component)));
    parts.push_back(matrix(block_map(where(rows.in_blocks, "component", component), rows.measure, scale)));
  }
  figures.add(run, "blocks_" + setting, setting + ", error by block and matrix", parts);
}

// Names the layers that a logarithmic axis cannot show.
Drawing not_drawn(const std::string& why, const ReportRows& rows) {
  constexpr std::size_t most = 6;
  if (rows.empty()) return {};
  Texts names;
  for (std::size_t i = 0; i < std::min(rows.size(), most); ++i) names.push_back(plain_layer(rows[i].text("layer")));
  const std::string more = rows.size() > most ? fmt::format(" and {} more", rows.size() - most) : "";
  return note(fmt::format("{}: {}{}", why, fmt::join(names, ", "), more));
}

LineChart depth_chart(const ReportRows& own, const Texts& matrices, const Measure& measure) {
  LineChart chart{.lines = {}, .x_label = "block", .y_label = measure.name};
  for (const std::string& name : matrices) {
    auto& line = chart.lines.emplace_back();
    for (const ReportRow& row : where(own, "matrix", name)) {
      if (const Number value = row.number(measure.column)) line.push_back({*row.number("block"), *value});
    }
  }
  return chart;
}

void add_depth(FigureList& figures, const std::string& run, const std::string& setting, const LayerRows& rows) {
  const char* const column = rows.measure.column;
  const Texts matrices = ordered_matrices(rows.in_blocks);
  std::vector<Drawing> parts = {legend(matrices, LegendOf::lines)};
  for (const std::string& component : distinct(rows.in_blocks, "component")) {
    parts.push_back(heading(spaced(component)));
    parts.push_back(line_chart(depth_chart(where(rows.in_blocks, "component", component), matrices, rows.measure)));
  }
  BarChart others{.bars = {}, .x_label = rows.measure.name};
  for (const ReportRow& row : rows.called) {
    if (row.number("block")) continue;
    const Number value = row.number(column);
    others.bars.push_back(
        {.name = plain_layer(row.text("layer")), .value = value, .text = value ? short_number(value) : "not finite"});
  }
  if (!others.bars.empty()) parts.insert(parts.end(), {heading("outside the blocks"), bar_chart(others)});
  ReportRows not_finite = rows.called;
  std::erase_if(not_finite, [&](const ReportRow& row) { return row.number(column).has_value(); });
  parts.push_back(not_drawn("Without a finite value", not_finite));
  parts.push_back(not_drawn("Exactly zero", where(rows.in_blocks, column, 0)));
  parts.push_back(not_drawn("Never called", where(rows.all, "n_calls", 0)));
  figures.add(run, "layers_" + setting, setting + ", error by depth", parts);
}

Texts ranked_components(const ReportData& data) {
  ReportRows rows;
  for (const auto& run : data.runs)
    std::ranges::copy(rows_of(data, "sensitivity", run["name"]), std::back_inserter(rows));
  return distinct(rows, "component");
}

std::size_t component_look(const Texts& components, const ReportRow& row) {
  return static_cast<std::size_t>(std::ranges::find(components, row.text("component")) - components.begin());
}

std::string budget_text(const ReportRows& rows) {
  const ReportRows kept = where(rows, "is_left_out", false);
  if (kept.empty() && where(rows, "is_left_out", true).empty()) return "";
  return fmt::format(" The budget's choice: {} of {} layers together; the others are left out.", kept.size(),
                     rows.size());
}

void add_ranking(FigureList& figures, const std::string& run, const ReportRows& rows, const Texts& components) {
  constexpr std::size_t most = 20;
  const std::string of = rows[0].text("of");
  BarChart chart{.bars = {}, .x_label = "action RMSE", .floor = rows[0].number("action_rmse_floor")};
  for (std::size_t i = 0; i < std::min(rows.size(), most); ++i) {
    const Number value = rows[i].number("action_rmse");
    chart.bars.push_back({.name = plain_layer(rows[i].text("name")),
                          .value = value,
                          .text = value ? short_number(value) : "not finite",
                          .tag = rows[i].is("is_left_out")   ? "left out"
                                 : rows[i].is("below_floor") ? "below floor"
                                                             : "",
                          .look = component_look(components, rows[i])});
  }
  const std::string shown = rows.size() > most ? fmt::format(" The first {} of {}.", most, rows.size()) : "";
  const std::string floor = chart.floor ? " Dashed line: the floor, what rounding alone causes." : "";
  figures.add(
      run, "sensitivity", "action RMSE by what is quantized alone",
      {of == "layer" ? legend(spaced(components), LegendOf::colours) : Drawing(), bar_chart(chart),
       note(fmt::format("{}, one {} at a time.{}{}{}", rows[0].text("setting"), of, shown, budget_text(rows), floor))});
}

// The relative RMSE of each layer in the first run of the ranking's model that has statistics of that setting.
std::map<std::string, double> own_errors(const ReportData& data, const std::string& ranking,
                                         const std::string& setting) {
  std::map<std::string, double> errors;
  for (const auto& run : data.runs) {
    if (!are_of_one_model(data, run["name"], ranking)) continue;
    const ReportRows rows = where(rows_of(data, "layers", run["name"]), "setting", setting);
    for (const ReportRow& row : rows) {
      if (const Number error = row.number("rel_rmse")) errors[row.text("layer")] = *error;
    }
    if (!rows.empty()) break;
  }
  return errors;
}

void add_effect(FigureList& figures, const std::string& run, const ReportRows& rows, const Texts& components) {
  constexpr std::size_t most_named = 8;
  const auto errors = own_errors(figures.data, run, rows[0].text("setting"));
  if (rows[0].text("of") != "layer" || errors.empty()) return;
  ScatterChart chart{.points = {},
                     .x_label = "relative RMSE of the layer",
                     .y_label = "action RMSE",
                     .floor = rows[0].number("action_rmse_floor"),
                     .floor_name = "floor: rounding alone"};
  for (const ReportRow& row : rows) {
    const auto own = errors.find(row.text("name"));
    const Number effect = row.number("action_rmse");
    if (own == errors.end() || !effect) continue;
    const std::string name = chart.points.size() < most_named ? plain_layer(row.text("name")) : "";
    chart.points.push_back({own->second, *effect, component_look(components, row), row.is("below_floor"), name});
  }
  figures.add(run, "effect", "effect of each layer against its own error",
              {legend(spaced(components), LegendOf::marks), scatter_chart(chart),
               note(fmt::format("{}, one layer at a time. {}", rows[0].text("setting"), hollow_note))});
}

}  // namespace

void add_layer_figures(FigureList& figures, const std::string& run) {
  const ReportRows of_run = rows_of(figures.data, "layers", run);
  const Measure measure = measure_of(of_run, {layer_measures[0], layer_measures[1]});
  for (const std::string& setting : distinct(of_run, "setting")) {
    const LayerRows rows = layers_of(of_run, setting, measure);
    add_blocks(figures, run, setting, rows);
    add_depth(figures, run, setting, rows);
  }
}

void add_sensitivity_figures(FigureList& figures, const std::string& run) {
  const ReportRows rows = rows_of(figures.data, "sensitivity", run);
  if (rows.empty()) return;
  const Texts components = ranked_components(figures.data);
  add_ranking(figures, run, rows, components);
  add_effect(figures, run, rows, components);
}

}  // namespace pi0::tools
