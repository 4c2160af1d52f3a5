// A report's tables for a terminal and as CSV.
#pragma once

#include <filesystem>
#include <string>

#include "tools/report/report_data.h"

namespace pi0::tools {

// The tables of every run for a terminal: settings with their components, the layers with the largest errors of single
// statistics, the head of a ranking, stages.
std::string report_text(const ReportData& data);

// One file per table beside `page`, "report.layers.csv" for "report.html", each whole or not at all.
// Throws std::runtime_error that names the file.
void write_csv(const ReportData& data, const std::filesystem::path& page);

}  // namespace pi0::tools
