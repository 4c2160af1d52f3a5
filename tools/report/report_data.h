// Results of any kind as flat tables, with the numbers of the files unrounded.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pi0::tools {

struct ReportTable {
  std::string name;
  std::vector<std::string> columns;
  std::vector<std::vector<nlohmann::ordered_json>> rows;
};

struct ReportData {
  // Each with name, kind (sweep, closed-loop, statistics or bench), source and meta, what was measured.
  std::vector<nlohmann::ordered_json> runs;

  // The tables of settings, components, layers, actions, success, sensitivity and stages that have rows. The first
  // column is the run's name, the second the setting's where there is one.
  std::vector<ReportTable> tables;

  const ReportTable* find(const std::string& table) const;  // null when it has no rows
};

// Every path is a folder that pi0 sweep or closed-loop (or pi0-quant's run_benchmark.py) wrote, a
// statistics file of ours or of pi0-quant's, or a file of pi0 bench --json. Throws std::runtime_error or
// std::invalid_argument that names the file, what was found and what was expected.
ReportData read_results(const std::vector<std::filesystem::path>& paths);

}  // namespace pi0::tools
