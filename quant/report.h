// Formats a snapshot of statistics as pi0-quant's JSON with additional keys, and as a table.
// Reference: pi0-quant stats_tracker.py layer_rows, component_rows.
#pragma once

#include <array>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "quant/stats_book.h"

namespace pi0::quant {

// The kinds of layers that statistics have.
inline constexpr std::array layer_kinds = {"linear", "attention", "kv_cache", "vector"};

// One component's layers of one kind. Layers that were never called count in n_layers only; without
// a called layer there is no row.
struct ComponentRow {
  std::string component;
  std::int64_t n_layers = 0;
  std::optional<double> mean_rmse;  // none if a called layer's rmse is not finite; likewise the next three
  std::optional<double> std_rmse;   // sample deviation over layers, 0 when fewer than two
  std::optional<double> max_rmse;
  std::optional<double> min_rmse;
  std::optional<double> mean_rel_rmse;  // none if a called layer has none; likewise the next
  std::optional<ByCause<std::optional<double>>> mean_rel_by_cause;  // none unless errors were split
  std::int64_t total_calls = 0;
};

// In the order vision, language, action_expert, action_head, unknown.
std::vector<ComponentRow> component_rows(const StatsSnapshot& snapshot, const std::string& kind);

// layers (sorted by component, then layer), components (of linears), components_attention, and `meta` with requests,
// measured, start and end added to it. Numbers that are not finite are null.
std::string report_json(const StatsSnapshot& snapshot, const nlohmann::ordered_json& meta);

// The tables of components as text.
std::string report_table(const StatsSnapshot& snapshot);

}  // namespace pi0::quant
