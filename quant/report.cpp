#include "quant/report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <tuple>

namespace pi0::quant {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array component_order = {"vision", "language", "action_expert", "action_head", "unknown"};

Json or_null(std::optional<double> value) { return value ? Json(*value) : Json(nullptr); }

ComponentRow summarise(const std::string& component, std::int64_t layers,
                       const std::vector<std::optional<double>>& rmse, std::int64_t calls) {
  ComponentRow row{component, layers, {}, {}, {}, {}, calls};
  double sum = 0, squares = 0;
  for (const std::optional<double>& value : rmse) {
    if (!value) return row;
    sum += *value;
  }
  const auto n = static_cast<double>(rmse.size());
  const double mean = sum / n;
  for (const std::optional<double>& value : rmse) squares += (*value - mean) * (*value - mean);
  row.mean_rmse = mean;
  row.std_rmse = rmse.size() < 2 ? 0.0 : std::sqrt(squares / (n - 1));
  row.max_rmse = *std::ranges::max_element(rmse);
  row.min_rmse = *std::ranges::min_element(rmse);
  return row;
}

Json layer_json(const SiteEntry& site) {
  const ErrorStats& errors = site.errors;
  return {{"layer", site.layer},
          {"component", site.component},
          {"in_features", site.in_features},
          {"out_features", site.out_features},
          {"n_calls", errors.call_count()},
          {"rmse", or_null(errors.rmse())},
          {"mse", or_null(errors.mse())},
          {"mse_std", or_null(errors.mse_std())},
          {"kind", site.kind},
          {"rel_rmse", or_null(errors.rel_rmse())},
          {"nonfinite", errors.nonfinite()}};
}

Json components_json(const StatsSnapshot& snapshot, const std::string& kind) {
  Json rows = Json::array();
  for (const ComponentRow& row : component_rows(snapshot, kind)) {
    rows.push_back({{"component", row.component},
                    {"n_layers", row.n_layers},
                    {"mean_rmse", or_null(row.mean_rmse)},
                    {"std_rmse", or_null(row.std_rmse)},
                    {"max_rmse", or_null(row.max_rmse)},
                    {"min_rmse", or_null(row.min_rmse)},
                    {"total_calls", row.total_calls}});
  }
  return rows;
}

std::string cell(std::optional<double> value) {
  char text[32];
  if (!value) return "         -";
  std::snprintf(text, sizeof text, "%10.4e", *value);
  return text;
}

}  // namespace

std::vector<ComponentRow> component_rows(const StatsSnapshot& snapshot, const std::string& kind) {
  std::vector<ComponentRow> rows;
  for (const char* component : component_order) {
    std::int64_t layers = 0, calls = 0;
    std::vector<std::optional<double>> rmse;
    for (const SiteEntry& site : snapshot.sites) {
      if (site.component != component || site.kind != kind) continue;
      ++layers;
      calls += site.errors.call_count();
      if (site.errors.call_count() > 0) rmse.push_back(site.errors.rmse());
    }
    if (!rmse.empty()) rows.push_back(summarise(component, layers, rmse, calls));
  }
  return rows;
}

std::string report_json(const StatsSnapshot& snapshot, const Json& meta) {
  std::vector<SiteEntry> sorted = snapshot.sites;
  std::ranges::sort(sorted, [](const SiteEntry& a, const SiteEntry& b) {
    return std::tie(a.component, a.layer) < std::tie(b.component, b.layer);
  });
  Json layers = Json::array();
  for (const SiteEntry& site : sorted) layers.push_back(layer_json(site));
  Json full_meta = meta;
  full_meta["requests"] = snapshot.requests;
  full_meta["measured"] = snapshot.measured;
  full_meta["start"] = snapshot.start;
  full_meta["end"] = utc_now();
  const Json report = {{"layers", std::move(layers)},
                       {"components", components_json(snapshot, "linear")},
                       {"components_attention", components_json(snapshot, "attention")},
                       {"meta", std::move(full_meta)}};
  return report.dump(1) + "\n";
}

std::string report_table(const StatsSnapshot& snapshot) {
  std::string text;
  for (const char* kind : {"linear", "attention"}) {
    const std::vector<ComponentRow> rows = component_rows(snapshot, kind);
    if (rows.empty()) continue;
    char line[160];
    std::snprintf(line, sizeof line, "%-14s %7s %10s %10s %10s %10s %9s\n", kind, "layers", "mean_rmse", "std_rmse",
                  "max_rmse", "min_rmse", "calls");
    text += line;
    for (const ComponentRow& row : rows) {
      std::snprintf(line, sizeof line, "%-14s %7lld %s %s %s %s %9lld\n", row.component.c_str(),
                    static_cast<long long>(row.n_layers), cell(row.mean_rmse).c_str(), cell(row.std_rmse).c_str(),
                    cell(row.max_rmse).c_str(), cell(row.min_rmse).c_str(), static_cast<long long>(row.total_calls));
      text += line;
    }
  }
  return text;
}

}  // namespace pi0::quant
