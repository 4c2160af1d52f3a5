#include "tools/report/report_rows.h"

#include <algorithm>

namespace pi0::tools {

using Json = nlohmann::ordered_json;

const Json& ReportRow::at(std::string_view column) const {
  const auto found = std::ranges::find(table_->columns, column);
  return cells_->at(static_cast<std::size_t>(found - table_->columns.begin()));
}

std::optional<double> ReportRow::number(std::string_view column) const {
  const Json& value = at(column);
  return value.is_number() ? std::optional(value.get<double>()) : std::nullopt;
}

std::string ReportRow::text(std::string_view column) const {
  const Json& value = at(column);
  return value.is_string() ? value.get<std::string>() : "";
}

ReportRows rows_of(const ReportData& data, const std::string& table, const std::string& run) {
  ReportRows rows;
  const ReportTable* const found = data.find(table);
  if (found == nullptr) return rows;
  for (const auto& cells : found->rows) {
    if (cells.front() == run) rows.emplace_back(*found, cells);
  }
  return rows;
}

ReportRows where(const ReportRows& rows, std::string_view column, const Json& value) {
  ReportRows those;
  std::ranges::copy_if(rows, std::back_inserter(those), [&](const ReportRow& row) { return row.at(column) == value; });
  return those;
}

bool have(const ReportRows& rows, std::string_view column) {
  return std::ranges::any_of(rows, [&](const ReportRow& row) { return row.at(column).is_number(); });
}

std::vector<std::string> distinct(const ReportRows& rows, std::string_view column) {
  std::vector<std::string> texts;
  for (const ReportRow& row : rows) {
    if (row.at(column).is_string() && std::ranges::find(texts, row.text(column)) == texts.end()) {
      texts.push_back(row.text(column));
    }
  }
  return texts;
}

std::vector<std::optional<double>> numbers(const ReportRows& rows, std::string_view column) {
  std::vector<std::optional<double>> values;
  for (const ReportRow& row : rows) values.push_back(row.number(column));
  return values;
}

bool are_of_one_model(const ReportData& data, const std::string& run, const std::string& other) {
  if (run == other) return true;
  const auto fact = [&](const std::string& name, const char* key) {
    const auto found = std::ranges::find_if(data.runs, [&](const Json& each) { return each["name"] == name; });
    return (*found)["meta"].value(key, Json());
  };
  bool is_known = false;
  for (const char* key : {"config", "precision", "checkpoint"}) {
    const Json one = fact(run, key), another = fact(other, key);
    if (one.is_null() || another.is_null()) continue;
    if (one != another) return false;
    is_known = true;
  }
  return is_known;
}

}  // namespace pi0::tools
