// What sweeps and closed loops leave on disk: a result.json per setting, and the summary of all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pi0::tools {

struct SweepResult {
  nlohmann::ordered_json meta;   // what results must share to be compared, and the setting's names
  nlohmann::ordered_json names;  // the setting's alone
  nlohmann::ordered_json entry;
  std::size_t place = 0;  // of the setting in its sweep
  std::size_t of = 0;     // settings of the sweep
};

void write_result(const std::filesystem::path& folder, const SweepResult& result);

// Both throw std::runtime_error that names the file, and what in it is not as write_result() or pi0 closed-loop leaves
// it.
SweepResult read_result(const std::filesystem::path& file);
nlohmann::ordered_json read_pair(const std::filesystem::path& file);  // of a closed loop's formats

// JSON for a file; bytes of names and messages that are not UTF-8 are replaced.
std::string text_of(const nlohmann::ordered_json& content);

// The entries' plain fields and their components, as CSV.
std::string table_of(const std::vector<nlohmann::ordered_json>& entries);

// summary.json and summary.csv of a folder, each whole or not at all.
void write_summary(const std::filesystem::path& folder, const std::vector<nlohmann::ordered_json>& entries);

}  // namespace pi0::tools
