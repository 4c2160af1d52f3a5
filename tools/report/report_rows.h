// Rows of a report's tables by the names of their columns.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/report/report_data.h"

namespace pi0::tools {

// One row of a table, which must outlive it.
class ReportRow {
 public:
  ReportRow(const ReportTable& table, const std::vector<nlohmann::ordered_json>& cells)
      : table_(&table), cells_(&cells) {}

  const nlohmann::ordered_json& at(std::string_view column) const;
  std::optional<double> number(std::string_view column) const;
  std::string text(std::string_view column) const;  // empty for null
  bool is(std::string_view flag) const { return at(flag) == true; }

 private:
  const ReportTable* table_;
  const std::vector<nlohmann::ordered_json>* cells_;
};

using ReportRows = std::vector<ReportRow>;

ReportRows rows_of(const ReportData& data, const std::string& table, const std::string& run);
ReportRows where(const ReportRows& rows, std::string_view column, const nlohmann::ordered_json& value);
bool have(const ReportRows& rows, std::string_view column);  // a number in any of them

// Whether results are of one model: of config, precision and checkpoint, what both runs say is the same.
bool are_of_one_model(const ReportData& data, const std::string& run, const std::string& other);

// The texts of a column, each once, in order; null is none.
std::vector<std::string> distinct(const ReportRows& rows, std::string_view column);
std::vector<std::optional<double>> numbers(const ReportRows& rows, std::string_view column);

}  // namespace pi0::tools
