// Compares results of `pi0 bench --json`.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/bench/bench_report.h"

namespace pi0::tools {

// The records of a file of --json. Throws std::runtime_error or std::invalid_argument that names the file.
std::vector<BenchColumn> read_benches(const std::filesystem::path& file);

// The record of a mode. Throws std::runtime_error that names the file when it has none, or one of other settings. The
// version, the instruction set and the number of runs may be others.
const nlohmann::ordered_json& comparable_record(const std::vector<BenchColumn>& records,
                                                const std::filesystem::path& file, const std::string& mode,
                                                const nlohmann::ordered_json& settings);

// A line for the whole request and for each stage: whether the medians of the runs that count differ by more than their
// spread, which is when their intervals (median_interval.h) have no value in common.
std::string compared_medians(const nlohmann::ordered_json& before, const nlohmann::ordered_json& now);

// Two files of --json side by side: what both hold, or the one record of each; and compared_medians() of equal
// settings. Throws std::runtime_error or std::invalid_argument that names the file.
std::string compare_benches(const std::filesystem::path& first, const std::filesystem::path& second);

}  // namespace pi0::tools
