// What pi0 closed-loop leaves on disk and prints. Layout and keys: pi0-quant run_benchmark.py.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tools/closed_loop/closed_loop_options.h"

namespace pi0::tools {

// A new folder of this moment in --output, or with --resume the newest there. Throws std::runtime_error that names the
// folder when there is none to resume, or it is of other settings.
std::filesystem::path result_folder(const ClosedLoopOptions& options);

// Adds to a pair's entry the mean over its scenes and what lies in its folder: videos and `stats`, the server's
// statistics. Writes eval_results.json, with the beginning of `log`.
void add_outcome(nlohmann::ordered_json& entry, const std::filesystem::path& folder, const std::filesystem::path& stats,
                 const std::string& log);

// A pair's entry that an earlier run left in `folder`, unless it had errors. Throws std::runtime_error that names the
// file when it is not one, or is another pair's.
std::optional<nlohmann::ordered_json> earlier_entry(const std::filesystem::path& folder);

bool has_error(const nlohmann::ordered_json& entry);       // of the pair or of a scene
std::string outcome(const nlohmann::ordered_json& entry);  // "success 0.75", with the errors

// summary.json and summary.csv.
void write_pair_summary(const std::filesystem::path& root, const std::vector<nlohmann::ordered_json>& entries);
void print_pairs(const std::vector<nlohmann::ordered_json>& entries);

}  // namespace pi0::tools
