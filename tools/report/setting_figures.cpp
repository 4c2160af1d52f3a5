// Figures of whole settings: errors by format and by bits.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "tools/report/figure_list.h"

namespace pi0::tools {
namespace {

using Json = nlohmann::ordered_json;
using Texts = std::vector<std::string>;

std::size_t place_in(const Texts& texts, const std::string& text) {
  return static_cast<std::size_t>(std::ranges::find(texts, text) - texts.begin());
}

// "77 %" of the first closed loop of that setting with the same model; empty without one.
std::string success_of(const ReportData& data, const std::string& sweep, const std::string& setting) {
  for (const Json& run : data.runs) {
    if (!are_of_one_model(data, run["name"], sweep)) continue;
    for (const ReportRow& row : where(rows_of(data, "settings", run["name"]), "setting", setting)) {
      if (const Number rate = row.number("success_rate")) return short_number(*rate * 100) + " %";
    }
  }
  return "";
}

void add_error_against_bits(FigureList& figures, const std::string& run) {
  constexpr std::size_t most_named = 8;
  ReportRows rows = rows_of(figures.data, "settings", run);
  std::erase_if(rows,
                [](const ReportRow& row) { return !row.number("action_rel_rmse") || !row.number("weight_bits"); });
  if (rows.empty()) return;
  std::ranges::stable_sort(rows, {}, [](const ReportRow& row) { return *row.number("weight_bits"); });
  const Texts outputs = distinct(rows_of(figures.data, "settings", run), "output_fmt");
  ScatterChart chart{.points = {},
                     .x_label = "bits of a weight",
                     .y_label = "relative action error",
                     .floor = rows.front().number("action_rel_rmse_floor"),
                     .floor_name = "floor: rounding alone"};
  bool has_success = false;
  std::string zeros;
  for (const ReportRow& row : rows) {
    const double bits = *row.number("weight_bits"), error = *row.number("action_rel_rmse");
    const std::string setting = row.text("setting"), success = success_of(figures.data, run, setting);
    has_success |= !success.empty();
    if (error == 0) zeros += (zeros.empty() ? " Exactly zero, which a log axis cannot show: " : ", ") + setting;
    const std::string name = rows.size() > most_named ? success : success.empty() ? setting : setting + ", " + success;
    chart.points.push_back({bits, error, place_in(outputs, row.text("output_fmt")), row.is("below_floor"), name});
    if (chart.x_ticks.empty() || chart.x_ticks.back() != bits) chart.x_ticks.push_back(bits);
    if (row.is("on_frontier")) chart.joined.push_back({bits, error});
  }
  figures.add(
      run, "error_against_bits", "relative error of the actions by bits",
      {legend(outputs, LegendOf::marks), scatter_chart(chart),
       note(fmt::format("Colour and shape: the format of outputs. {} The thin dashed line joins the settings that no "
                        "other beats in both.{}{}",
                        hollow_note, has_success ? " %: success in simulation." : "", zeros))});
}

// "bfloat16, weights int4:group128" of "bfloat16 / float16, weights int4:group128".
std::string without_output(const ReportRow& row) {
  std::string name = row.text("setting");
  const std::string output = " / " + row.text("output_fmt");
  return name.erase(name.find(output), output.size());
}

void add_action_error(FigureList& figures, const std::string& run) {
  const ReportRows rows = rows_of(figures.data, "settings", run);
  const auto is_pair = [](const ReportRow& row) {
    return row.number("action_rmse") && row.at("input_fmt").is_string();
  };
  if (!std::ranges::any_of(rows, is_pair)) return;
  const Measure measure =
      measure_of(rows, {{"action_rel_rmse", "Relative action error"}, {"action_rmse", "Action RMSE"}});
  const LogScale scale(numbers(rows, measure.column));
  Matrix map{
      .corner = "input \\ output", .groups = {}, .columns = distinct(rows, "output_fmt"), .rows = {}, .row_height = 24};
  bool has_stars = false;
  std::map<std::pair<std::string, std::string>, ReportRow> settings;
  std::vector<std::string> inputs;
  for (const ReportRow& row : rows) {
    if (!row.at("input_fmt").is_string()) continue;
    const std::string input = without_output(row);
    if (std::ranges::find(inputs, input) == inputs.end()) inputs.push_back(input);
    settings.emplace(std::pair(input, row.text("output_fmt")), row);
  }
  for (const std::string& input : inputs) {
    auto& cells = map.rows.emplace_back(input, std::vector<MatrixCell>{}).second;
    for (const std::string& output : map.columns) {
      const auto found = settings.find({input, output});
      MatrixCell& cell = cells.emplace_back(
          heat_cell(found == settings.end() ? Number() : found->second.number(measure.column), scale));
      if (found == settings.end() || !found->second.is("below_floor")) continue;
      cell.text += '*';
      has_stars = true;
    }
  }
  figures.add(run, "action_error", "error of the actions by format",
              {scale_bar(scale, measure.name), matrix(map),
               note(has_stars ? "*: not above the floor, so rounding alone causes as much." : "")});
}

}  // namespace

void add_setting_figures(FigureList& figures, const std::string& run) {
  add_action_error(figures, run);
  add_error_against_bits(figures, run);
}

}  // namespace pi0::tools
