// A snapshot of statistics as the JSON that pi0-quant writes, with keys of ours added, and as a table.
// Reference: pi0-quant stats_tracker.py layer_rows, component_rows.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "quant/stats_book.h"

namespace pi0::quant {

// One component's layers of one kind. Layers that were never called count in n_layers only; without
// a called layer there is no row.
struct ComponentRow {
  std::string component;
  std::int64_t n_layers = 0;
  std::optional<double> mean_rmse;  // none when a called layer's rmse is not finite, as the next three
  std::optional<double> std_rmse;   // sample deviation over layers, 0 when fewer than two
  std::optional<double> max_rmse;
  std::optional<double> min_rmse;
  std::int64_t total_calls = 0;
};

// In the order vision, language, action_expert, action_head, unknown.
std::vector<ComponentRow> component_rows(const StatsSnapshot& snapshot, const std::string& kind);

// layers (sorted by component, then layer), components (of linears), components_attention, and `meta` with requests,
// measured, start and end added to it. Numbers that are not finite are null.
std::string report_json(const StatsSnapshot& snapshot, const nlohmann::ordered_json& meta);

// The component tables for people.
std::string report_table(const StatsSnapshot& snapshot);

}  // namespace pi0::quant
