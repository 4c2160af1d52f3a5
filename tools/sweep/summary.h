// What a sweep says at its end.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pi0::tools {

// Writes summary.json and summary.csv into the folder, each whole or not at all, and prints the settings as a table
// with what to run next.
void write_summary(const std::filesystem::path& folder, const std::vector<nlohmann::ordered_json>& entries);

// The line that ends a sweep: how to look at the folder's results.
void print_next(const std::filesystem::path& folder);

std::string figure(const nlohmann::ordered_json& value);  // three digits; "-" for null

// Marks a figure that rounding alone would cause, here and in rankings.
inline constexpr const char* floor_mark = "*";
std::string floor_note(const nlohmann::ordered_json& entry);  // explains the mark; empty without a floor

}  // namespace pi0::tools
