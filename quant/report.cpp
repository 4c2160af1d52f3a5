#include "quant/report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>
#include <tuple>

#include "quant/layer_place.h"

namespace pi0::quant {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array component_order = {"vision", "language", "action_expert", "action_head", "unknown"};

Json or_null(std::optional<double> value) { return value ? Json(*value) : Json(nullptr); }

// Not finite values are none.
std::optional<double> mean_of(const std::vector<std::optional<double>>& values) {
  double sum = 0;
  for (const std::optional<double>& value : values) {
    if (!value) return {};
    sum += *value;
  }
  return sum / static_cast<double>(values.size());
}

void add_rmse(ComponentRow& row, const std::vector<std::optional<double>>& rmse) {
  row.mean_rmse = mean_of(rmse);
  if (!row.mean_rmse) return;
  double squares = 0;
  for (const std::optional<double>& value : rmse) squares += (*value - *row.mean_rmse) * (*value - *row.mean_rmse);
  row.std_rmse = rmse.size() < 2 ? 0.0 : std::sqrt(squares / static_cast<double>(rmse.size() - 1));
  row.max_rmse = *std::ranges::max_element(rmse);
  row.min_rmse = *std::ranges::min_element(rmse);
}

constexpr std::array cause_names = {"operands", "accumulation", "output"};

template <class Errors>
std::array<Errors, 3> by_name(const ByCause<Errors>& causes) {
  return {causes.operands, causes.accumulation, causes.output};
}

bool has_causes(const SiteEntry& site) { return site.causes.operands.call_count() > 0; }

// `depth` is the site's place along the forward pass, from 0.
Json layer_json(const SiteEntry& site, std::size_t depth) {
  const ErrorStats& errors = site.errors;
  const LayerPlace place = place_of(site.layer);
  Json row = {{"layer", site.layer},
              {"component", site.component},
              {"in_features", site.in_features},
              {"out_features", site.out_features},
              {"n_calls", errors.call_count()},
              {"rmse", or_null(errors.rmse())},
              {"mse", or_null(errors.mse())},
              {"mse_std", or_null(errors.mse_std())},
              {"kind", site.kind},
              {"rel_rmse", or_null(errors.rel_rmse())},
              {"nonfinite", errors.nonfinite()},
              {"block", place.block ? Json(*place.block) : Json(nullptr)},
              {"matrix", place.matrix},
              {"depth", depth}};
  for (std::size_t i = 0; has_causes(site) && i < cause_names.size(); ++i) {
    const ErrorStats own = by_name(site.causes)[i];
    row[cause_names[i] + std::string("_rmse")] = or_null(own.rmse());
    row[cause_names[i] + std::string("_rel_rmse")] = or_null(own.rel_rmse());
  }
  return row;
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
                    {"total_calls", row.total_calls},
                    {"mean_rel_rmse", or_null(row.mean_rel_rmse)}});
    for (std::size_t i = 0; row.mean_rel_by_cause && i < cause_names.size(); ++i) {
      rows.back()["mean_" + std::string(cause_names[i]) + "_rel_rmse"] = or_null(by_name(*row.mean_rel_by_cause)[i]);
    }
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
    ComponentRow row;
    row.component = component;
    std::vector<std::optional<double>> rmse, rel_rmse;
    std::array<std::vector<std::optional<double>>, 3> of_causes;
    for (const SiteEntry& site : snapshot.sites) {
      if (site.component != component || site.kind != kind) continue;
      ++row.n_layers;
      row.total_calls += site.errors.call_count();
      if (site.errors.call_count() == 0) continue;
      rmse.push_back(site.errors.rmse());
      rel_rmse.push_back(site.errors.rel_rmse());
      for (std::size_t i = 0; has_causes(site) && i < of_causes.size(); ++i) {
        of_causes[i].push_back(by_name(site.causes)[i].rel_rmse());
      }
    }
    if (rmse.empty()) continue;
    add_rmse(row, rmse);
    row.mean_rel_rmse = mean_of(rel_rmse);
    if (!of_causes[0].empty()) {
      row.mean_rel_by_cause = {mean_of(of_causes[0]), mean_of(of_causes[1]), mean_of(of_causes[2])};
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string report_json(const StatsSnapshot& snapshot, const Json& meta) {
  std::vector<std::size_t> order(snapshot.sites.size());  // depths
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t depth) {
    const SiteEntry& site = snapshot.sites[depth];
    return std::tie(site.component, site.layer);
  });
  Json layers = Json::array();
  for (const std::size_t depth : order) layers.push_back(layer_json(snapshot.sites[depth], depth));
  Json full_meta = meta;
  full_meta["requests"] = snapshot.requests;
  full_meta["measured"] = snapshot.measured;
  full_meta["start"] = snapshot.start;
  full_meta["end"] = utc_now();
  Json report = {{"layers", std::move(layers)},
                 {"components", components_json(snapshot, "linear")},
                 {"components_attention", components_json(snapshot, "attention")}};
  for (const std::string kind : {"kv_cache", "vector"}) {
    Json rows = components_json(snapshot, kind);
    if (!rows.empty()) report["components_" + kind] = std::move(rows);
  }
  report["meta"] = std::move(full_meta);
  return report.dump(1) + "\n";
}

std::string report_table(const StatsSnapshot& snapshot) {
  std::string text;
  for (const char* kind : layer_kinds) {
    const std::vector<ComponentRow> rows = component_rows(snapshot, kind);
    if (rows.empty()) continue;
    char line[160];
    const bool is_split = rows.front().mean_rel_by_cause.has_value();
    std::snprintf(line, sizeof line, "%-14s %7s %10s %10s %10s %10s %10s %9s%s\n", kind, "layers", "mean_rmse",
                  "std_rmse", "max_rmse", "min_rmse", "mean_rel", "calls",
                  is_split ? "   operands accumulat.     output" : "");
    text += line;
    for (const ComponentRow& row : rows) {
      std::snprintf(line, sizeof line, "%-14s %7lld %s %s %s %s %s %9lld\n", row.component.c_str(),
                    static_cast<long long>(row.n_layers), cell(row.mean_rmse).c_str(), cell(row.std_rmse).c_str(),
                    cell(row.max_rmse).c_str(), cell(row.min_rmse).c_str(), cell(row.mean_rel_rmse).c_str(),
                    static_cast<long long>(row.total_calls));
      if (is_split) {
        line[std::string_view(line).size() - 1] = '\0';  // the end of the line
        text += line;
        for (const auto& mean : by_name(row.mean_rel_by_cause.value_or(ByCause<std::optional<double>>{}))) {
          text += " " + cell(mean);
        }
        text += "\n";
        continue;
      }
      text += line;
    }
  }
  return text;
}

}  // namespace pi0::quant
