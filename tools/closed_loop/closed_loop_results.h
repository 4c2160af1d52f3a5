// What pi0 closed-loop leaves on disk and prints. Layout and keys: pi0-quant run_benchmark.py.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tools/closed_loop/closed_loop_options.h"
#include "tools/closed_loop/success_rules.h"

namespace pi0::tools {

// A new folder of this moment in --output, or with --resume the newest there, whose rules of success may be others.
// Throws std::runtime_error that names the folder when there is none to resume, or it is of other settings.
// Without rules on the command line, those of the earlier run become the options'.
std::filesystem::path result_folder(ClosedLoopOptions& options);
void write_settings(const std::filesystem::path& root, const ClosedLoopOptions& options);  // settings.json

// The scene's log and output folder in the folder of a setting.
std::filesystem::path scene_log(const std::filesystem::path& folder, const std::string& scene);
std::filesystem::path scene_output(const std::filesystem::path& folder, const std::string& scene);  // absolute

// What was found of a scene's episodes, with rates and intervals, into its result.
void add_outcomes(nlohmann::ordered_json& result, const Outcomes& outcomes);

// What lies in a setting's folder, into its entry: the errors of the components in `stats`, the server's statistics.
void add_statistics(nlohmann::ordered_json& entry, const std::filesystem::path& stats);

// The totals over the scenes that had no error, and the videos of a setting, into its entry. Writes eval_results.json.
void add_totals(nlohmann::ordered_json& entry, const std::filesystem::path& folder);

// A setting's entry that an earlier run left in `folder`, unless something there did not run to its end. Throws
// std::runtime_error that names the file when it is not one, or is another setting's.
std::optional<nlohmann::ordered_json> earlier_entry(const std::filesystem::path& folder);

bool has_error(const nlohmann::ordered_json& entry);  // of the setting or of a scene
// All that are in it, on a line; nothing without one.
std::string errors_of(const nlohmann::ordered_json& entry);
std::string outcome(const nlohmann::ordered_json& entry);  // "success 15 of 20 (0.53 to 0.89)", with the errors

// Compares each setting with the unquantized one (or float32 in and out), episode by episode, and adds what comes out.
void add_comparisons(std::vector<nlohmann::ordered_json>& entries);

// summary.json and summary.csv.
void write_closed_loop_summary(const std::filesystem::path& root, const std::vector<nlohmann::ordered_json>& entries);
void print_settings(const std::vector<nlohmann::ordered_json>& entries);

}  // namespace pi0::tools
