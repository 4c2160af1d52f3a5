#include "tools/report/report_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "protocol/files.h"
#include "tools/common/csv.h"
#include "tools/common/text_table.h"
#include "tools/report/report_rows.h"

namespace pi0::tools {
namespace {

using Json = nlohmann::ordered_json;
using Row = std::vector<Json>;

constexpr std::size_t shown = 15;  // rows of long tables

std::string cell(const Json& value) {
  if (value.is_null()) return "-";
  if (value.is_string()) return value.get<std::string>();
  return value.is_number_float() ? fmt::format("{:.3g}", value.get<double>()) : value.dump();
}

// Indented by two blanks.
std::string aligned(const std::vector<std::string>& header, const std::vector<Row>& rows) {
  std::vector<std::vector<std::string>> lines = {header};
  for (const Row& row : rows) {
    auto& line = lines.emplace_back();
    for (const Json& value : row) line.push_back(cell(value));
  }
  for (auto& line : lines) line.front().insert(0, "  ");
  return text_table(lines);
}

std::string settings_text(const ReportData& data, const std::string& run) {
  const ReportRows settings = rows_of(data, "settings", run), components = rows_of(data, "components", run);
  if (settings.empty()) return "";
  const char* const measure = have(components, "mean_rel_rmse") ? "mean_rel_rmse" : "mean_rmse";
  std::map<std::pair<std::string, std::string>, Json> rmse;  // of setting and component
  const ReportRows linears = where(components, "kind", "linear");
  const std::vector<std::string> names = distinct(linears, "component");
  for (const ReportRow& row : linears) rmse[{row.text("setting"), row.text("component")}] = row.at(measure);
  std::vector<std::string> columns;
  for (const char* column :
       {"action_rmse", "action_rmse_floor", "action_rmse_se", "action_rel_rmse", "action_cosine", "inference_time_s",
        "success_rate", "success_low", "success_high", "mcnemar_p", "score_mean", "error"}) {
    const auto is_there = [&](const ReportRow& row) { return !row.at(column).is_null(); };
    if (std::ranges::any_of(settings, is_there)) columns.emplace_back(column);
  }
  std::vector<std::string> header = {"setting"};
  header.insert(header.end(), columns.begin(), columns.end());
  const std::string prefix = std::string_view(measure) == "mean_rmse" ? "rmse_" : "rel_rmse_";
  for (const std::string& name : names) header.push_back(prefix + name);
  std::vector<Row> rows;
  for (const ReportRow& row : settings) {
    const std::string setting = row.text("setting");
    Row& line = rows.emplace_back(Row{setting});
    for (const std::string& column : columns) {
      if (column == "action_cosine" && row.number(column)) {
        line.emplace_back(fmt::format("{:.6f}", *row.number(column)));
        continue;
      }
      const bool is_marked = column == "action_rmse" && row.is("below_floor");
      line.push_back(is_marked ? Json(cell(row.at(column)) + "*") : row.at(column));
    }
    for (const std::string& name : names) line.push_back(rmse[{setting, name}]);
  }
  return aligned(header, rows);
}

std::string layers_text(const ReportData& data, const Json& run) {
  if (run["kind"] != "statistics") return "";
  ReportRows layers = rows_of(data, "layers", run["name"]);
  std::ranges::stable_sort(layers, std::ranges::greater{},
                           [](const ReportRow& row) { return row.number("rmse").value_or(-1); });
  std::vector<Row> rows;
  for (const ReportRow& row : layers) {
    if (rows.size() == shown) break;
    rows.push_back({row.at("layer"), row.at("rmse"), row.at("rel_rmse"), row.at("n_calls")});
  }
  return fmt::format("\nThe {} of {} layers with the largest RMSE\n", rows.size(), layers.size()) +
         aligned({"layer", "rmse", "rel_rmse", "n_calls"}, rows);
}

std::string ranking_text(const ReportData& data, const std::string& run) {
  const ReportRows ranking = rows_of(data, "sensitivity", run);
  if (ranking.empty()) return "";
  std::vector<Row> rows;
  for (const ReportRow& row : ranking) {
    if (rows.size() == shown) break;
    const Json rmse = row.is("below_floor") ? Json(cell(row.at("action_rmse")) + "*") : row.at("action_rmse");
    rows.push_back({row.at("name"), rmse, row.at("action_rmse_floor"), row.at("setting")});
  }
  return fmt::format("\nThe {} most sensitive of {}, quantized alone\n", rows.size(), ranking.size()) +
         aligned({"name", "action_rmse", "action_rmse_floor", "formats"}, rows);
}

std::string stages_text(const ReportData& data, const Json& run) {
  const ReportRows stages = rows_of(data, "stages", run["name"]);
  if (stages.empty()) return "";
  std::vector<Row> rows;
  for (const ReportRow& row : stages) rows.push_back({row.at("setting"), row.at("stage"), row.at("seconds")});
  std::string text = aligned({"mode", "stage", "seconds"}, rows);
  for (const auto& [key, value] : run["meta"].items()) {
    if (key.starts_with("warning")) text += fmt::format("  {}: {}\n", key, cell(value));
  }
  return text;
}

}  // namespace

std::string report_text(const ReportData& data) {
  std::string text;
  for (const Json& run : data.runs) {
    const auto name = run["name"].get<std::string>();
    text += fmt::format("{}{} ({}): {}\n", text.empty() ? "" : "\n", name, run["kind"].get<std::string>(),
                        run["source"].get<std::string>());
    text += settings_text(data, name) + layers_text(data, run) + ranking_text(data, name) + stages_text(data, run);
  }
  return text;
}

void write_csv(const ReportData& data, const std::filesystem::path& page) {
  for (const ReportTable& table : data.tables) {
    std::string csv = csv_line({table.columns.begin(), table.columns.end()});
    for (const Row& row : table.rows) csv += csv_line(row);
    std::filesystem::path file = page;
    protocol::write_whole(file.replace_extension(table.name + ".csv"), csv);
  }
}

}  // namespace pi0::tools
