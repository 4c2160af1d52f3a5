// What sweeps and closed loops leave on disk: a folder per setting with its result.json, and the summary of all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pi0::tools {

// The folder of a rules file.
std::string rules_folder(const std::filesystem::path& rules);

// What people call a setting: "float8_e4m3 / float16", "bfloat16 / bfloat16, weights int4:group128", "rules careful",
// "unquantized"; empty when the entry of a sweep or closed loop, or the meta of statistics, does not say.
std::string setting_name(const nlohmann::ordered_json& entry);

// The setting without formats, with which a closed loop compares others.
inline constexpr const char* unquantized_name = "unquantized";

// Results are compared or continued only if they were measured with the same settings. Throws std::runtime_error that
// names `place`, whose settings are `found`, and the first setting that differs in `other`.
void check_same_settings(const std::filesystem::path& place, const nlohmann::ordered_json& found,
                         const std::string& other, const nlohmann::ordered_json& wanted);

struct SweepResult {
  nlohmann::ordered_json meta;   // what results must share to be compared, and `names`
  nlohmann::ordered_json names;  // what the setting is: formats, layer, ...
  nlohmann::ordered_json entry;
  std::size_t place = 0;  // of the setting in its sweep
  std::size_t of = 0;     // settings of the sweep
};

void write_result(const std::filesystem::path& folder, const SweepResult& result);

// Both are strict: they throw std::runtime_error that names the file and what write_result() or pi0 closed-loop would
// not have written.
SweepResult read_result(const std::filesystem::path& file);
nlohmann::ordered_json read_closed_loop_entry(const std::filesystem::path& file);

// JSON for a file; bytes of names and messages that are not UTF-8 are replaced.
std::string text_of(const nlohmann::ordered_json& content);

// The entries as CSV, one value per column: plain fields, then components, joints and denoise steps.
std::string table_of(const std::vector<nlohmann::ordered_json>& entries);

}  // namespace pi0::tools
