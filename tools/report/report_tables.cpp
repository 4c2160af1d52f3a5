#include "tools/report/report_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "protocol/files.h"
#include "tools/common/csv.h"
#include "tools/common/text_table.h"

namespace pi0::tools {
namespace {

using Json = nlohmann::ordered_json;
using Row = std::vector<Json>;

constexpr std::size_t shown = 15;  // rows of long tables

std::string cell(const Json& value) {
  if (value.is_null()) return "-";
  if (value.is_string()) return value.get<std::string>();
  return value.is_number_float() ? fmt::format("{:.4g}", value.get<double>()) : value.dump();
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

class Rows {
 public:
  Rows(const ReportData& data, const std::string& table, const Json& run) : table_(data.find(table)) {
    if (table_ == nullptr) return;
    for (const Row& row : table_->rows) {
      if (row.front() == run["name"]) rows_.push_back(&row);
    }
  }

  auto begin() const { return rows_.begin(); }
  auto end() const { return rows_.end(); }
  std::size_t size() const { return rows_.size(); }
  const Json& at(const Row* row, const std::string& column) const {
    const auto found = std::ranges::find(table_->columns, column);
    return (*row)[static_cast<std::size_t>(found - table_->columns.begin())];
  }
  void sort_down_by(const std::string& column) {
    std::ranges::stable_sort(rows_, std::ranges::greater{}, [&](const Row* row) {
      const Json& value = at(row, column);
      return value.is_number() ? value.get<double>() : -1.0;
    });
  }

 private:
  const ReportTable* table_;
  std::vector<const Row*> rows_;
};

std::string settings_text(const ReportData& data, const Json& run) {
  const Rows settings(data, "settings", run), components(data, "components", run);
  if (settings.size() == 0) return "";
  std::map<std::pair<std::string, std::string>, Json> rmse;  // of setting and component
  std::vector<std::string> names;
  for (const Row* row : components) {
    if (components.at(row, "kind") != "linear") continue;
    const auto name = components.at(row, "component").get<std::string>();
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
    rmse[{components.at(row, "setting").get<std::string>(), name}] = components.at(row, "mean_rmse");
  }
  std::vector<std::string> columns;
  for (const char* column : {"action_rmse", "action_rmse_floor", "action_rel_rmse", "action_cosine", "inference_time_s",
                             "success_rate", "success_low", "success_high", "mcnemar_p", "score_mean", "error"}) {
    const auto is_there = [&](const Row* row) { return !settings.at(row, column).is_null(); };
    if (std::ranges::any_of(settings, is_there)) columns.emplace_back(column);
  }
  std::vector<std::string> header = {"setting"};
  header.insert(header.end(), columns.begin(), columns.end());
  header.insert(header.end(), names.begin(), names.end());
  std::vector<Row> rows;
  for (const Row* row : settings) {
    const Json& setting = settings.at(row, "setting");
    Row& line = rows.emplace_back(Row{setting});
    for (const std::string& column : columns) line.push_back(settings.at(row, column));
    for (const std::string& name : names) line.push_back(rmse[{setting.get<std::string>(), name}]);
  }
  return aligned(header, rows);
}

std::string layers_text(const ReportData& data, const Json& run) {
  if (run["kind"] != "statistics") return "";
  Rows layers(data, "layers", run);
  layers.sort_down_by("rmse");
  std::vector<Row> rows;
  for (const Row* row : layers) {
    if (rows.size() == shown) break;
    rows.push_back(
        {layers.at(row, "layer"), layers.at(row, "rmse"), layers.at(row, "rel_rmse"), layers.at(row, "n_calls")});
  }
  return fmt::format("\nThe {} of {} layers with the largest RMSE\n", rows.size(), layers.size()) +
         aligned({"layer", "rmse", "rel_rmse", "n_calls"}, rows);
}

std::string ranking_text(const ReportData& data, const Json& run) {
  const Rows ranking(data, "sensitivity", run);
  if (ranking.size() == 0) return "";
  std::vector<Row> rows;
  for (const Row* row : ranking) {
    if (rows.size() == shown) break;
    rows.push_back({ranking.at(row, "name"), ranking.at(row, "action_rmse"), ranking.at(row, "setting")});
  }
  return fmt::format("\nThe {} most sensitive of {}, quantized alone\n", rows.size(), ranking.size()) +
         aligned({"name", "action_rmse", "formats"}, rows);
}

std::string stages_text(const ReportData& data, const Json& run) {
  const Rows stages(data, "stages", run);
  if (stages.size() == 0) return "";
  std::vector<Row> rows;
  for (const Row* row : stages) {
    rows.push_back({stages.at(row, "setting"), stages.at(row, "stage"), stages.at(row, "seconds")});
  }
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
    text += fmt::format("{}{} ({}): {}\n", text.empty() ? "" : "\n", run["name"].get<std::string>(),
                        run["kind"].get<std::string>(), run["source"].get<std::string>());
    text += settings_text(data, run) + layers_text(data, run) + ranking_text(data, run) + stages_text(data, run);
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
