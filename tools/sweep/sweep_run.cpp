#include "tools/sweep/sweep_run.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "model/json_fields.h"
#include "protocol/files.h"
#include "quant/attach.h"
#include "quant/report.h"
#include "tools/common/format_fields.h"
#include "tools/common/print.h"
#include "tools/common/results.h"
#include "tools/common/stopwatch.h"
#include "tools/sweep/action_errors.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

void tell(const std::string& line) { print(stderr, "sweep: {}\n", line); }

void add_components(Json& entry, const quant::StatsSnapshot& seen) {
  const auto or_null = [](std::optional<double> value) { return value ? Json(*value) : Json(); };
  for (const auto& [key, kind, is_always] :
       {std::tuple("components", "linear", true), std::tuple("components_attention", "attention", true),
        std::tuple("components_kv_cache", "kv_cache", false), std::tuple("components_vector", "vector", false)}) {
    Json rmse = Json::object(), relative = Json::object();
    const std::vector<quant::ComponentRow> rows = quant::component_rows(seen, kind);
    if (rows.empty() && !is_always) continue;
    for (const quant::ComponentRow& row : rows) {
      rmse[row.component] = or_null(row.mean_rmse);
      relative[row.component] = or_null(row.mean_rel_rmse);
    }
    entry[key] = std::move(rmse);
    entry[key + std::string("_rel_rmse")] = std::move(relative);
  }
}

std::string duration(double seconds) {
  return seconds < 120 ? fmt::format("{:.0f} s", seconds) : fmt::format("{:.0f} min", seconds / 60);
}

}  // namespace

SweepRun::SweepRun(const SweepOptions& options)
    : options_(options), model_(options.model, options.source, tell, [this] { stop_.check(); }) {
  meta_ = model_.meta();
  meta_["quantize_attention"] = name_of(options.quant.attention);
  meta_["floor_repeats"] = options.floor_repeats;
  meta_["skip_components"] = options.quant.skip_components;
  if (!options.quant.calibration.empty()) meta_["calibration"] = options.quant.calibration.string();
  if (options.quant.split_errors) meta_["split_errors"] = true;
}

std::vector<Json> SweepRun::entries_of(const std::vector<Setting>& settings) {
  std::vector<Json> entries(settings.size());
  std::size_t done = 0;
  for (std::size_t i = 0; i < settings.size(); ++i) {
    entries[i] = earlier_entry(settings[i]);
    if (!entries[i].is_null()) ++done;
  }
  if (done > 0) tell(fmt::format("{} of {} settings are done already", done, settings.size()));
  if (done == settings.size()) return entries;
  load();
  Stopwatch clock;
  double seconds = 0;
  const std::size_t first = done;
  for (std::size_t i = 0; i < settings.size(); ++i) {
    if (!entries[i].is_null()) continue;
    entries[i] = measure(settings[i]);
    seconds += clock.lap();
    ++done;
    const double left = seconds / static_cast<double>(done - first) * static_cast<double>(settings.size() - done);
    tell(fmt::format("{} of {}, {}: action RMSE {:.4g}, {:.1f} s; {:.0f} s left", done, settings.size(),
                     settings[i].folder, action_rmse(entries[i]), entries[i]["inference_time_s"].get<double>(), left));
  }
  return entries;
}

const model::SiteList& SweepRun::sites() {
  load();
  return model_.model().sites();
}

Json SweepRun::meta_of(const Setting& setting) const {
  Json meta = meta_;
  meta.update(setting.names);
  return meta;
}

// The entry that an earlier run left for a setting; null when there is none.
Json SweepRun::earlier_entry(const Setting& setting) const {
  const fs::path file = options_.output / setting.folder / "result.json";
  if (!fs::exists(file)) return {};
  if (!options_.resume) {
    throw std::runtime_error(file.string() +
                             ": exists already; --resume continues such a sweep, or choose another --output");
  }
  if (!fs::exists(file.parent_path() / "stats.json")) return {};  // incomplete: measured again
  const SweepResult result = read_result(file);
  check_same_settings(file, result.meta, "this sweep", meta_of(setting));
  if (result.names != setting.names) {
    throw std::runtime_error(fmt::format("{}: 'names' is {}, expected {}; remove the file to measure this again",
                                         file.string(), model::shown(result.names), model::shown(setting.names)));
  }
  return result.entry;
}

// Only when there is something to run.
void SweepRun::load() {
  if (model_.is_loaded()) return;
  if (!options_.dry_run) {
    fs::create_directories(options_.output);
    protocol::check_writable(options_.output / "summary.json");
  }
  model_.load_weights();
  calibration_ = read_calibration(options_.quant, model_.model().sites());
  if (options_.dry_run) {
    model_.sample(model_.cases().front());  // counts the sites' work, and makes what later calls reuse
  } else {
    model_.run_references(options_.floor_repeats);
  }
}

std::unique_ptr<quant::Attachment> SweepRun::attach(const Setting& setting, quant::StatsBook& book) const {
  quant::PlanRequest plan = setting.plan;
  plan.calibration = calibration_;
  auto hooks = quant::attach(model_.model().sites(), plan, &book, tell);
  if (options_.quant.split_errors) hooks->split_errors();
  return hooks;
}

void SweepRun::print_estimate(const std::vector<Setting>& settings, std::size_t more) {
  load();
  const SweepCase& one = model_.cases().front();
  Stopwatch clock;
  model_.sample(one);
  const double unquantized = clock.lap();
  quant::StatsBook book;
  const auto hooks = attach(settings.front(), book);
  const double attach = clock.lap();
  model_.sample(one);
  const double quantized = clock.lap();

  const auto observations = static_cast<double>(model_.cases().size());
  const auto count = static_cast<double>(settings.size() + more);
  const double references = observations * static_cast<double>(1 + options_.floor_repeats) * unquantized;
  const double seconds = references + count * (attach + observations * quantized);
  constexpr std::size_t shown = 30;
  print("settings: {}\n", settings.size());
  for (std::size_t i = 0; i < std::min(shown, settings.size()); ++i) print("  {}\n", settings[i].folder);
  if (settings.size() > shown) print("  and {} more\n", settings.size() - shown);
  if (more > 0) print("  and up to {} to find the budget\n", more);
  print("observations: {}, {}\n", model_.cases().size(), model_.observations());
  print("time: about {}; one observation took {:.2g} s unquantized and {:.2g} s quantized ({})\n", duration(seconds),
        unquantized, quantized, settings.front().folder);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  print("memory: {:.1f} GiB so far; a setting whose weights are wider than the first one's takes more\n",
        static_cast<double>(usage.ru_maxrss) / (1 << 20));  // in KiB
}

Json SweepRun::measure(const Setting& setting) {
  quant::StatsBook book;
  const auto hooks = attach(setting, book);
  ActionErrors errors;
  Stopwatch clock;
  double seconds = 0;
  for (const SweepCase& one : model_.cases()) {
    clock.lap();
    const ActionSample found = model_.sample(one);
    seconds += clock.lap();
    book.finish_request(quant::StatsBook::Measured::yes);
    errors.add(one.name, one.reference, found);
  }
  Json entry = setting.names;
  entry.update(fields_of(hooks->weight_size()));
  errors.write(entry, model_.has_robot(), model_.action_names(), model_.floor());
  const quant::StatsSnapshot seen = book.snapshot();
  add_components(entry, seen);
  entry["n_observations"] = model_.cases().size();
  entry["inference_time_s"] = seconds;
  const Json meta = meta_of(setting);
  Json stats_meta = meta;
  stats_meta.update(fields_of(hooks->weight_size()));
  const fs::path folder = options_.output / setting.folder;
  fs::create_directories(folder);
  protocol::write_whole(folder / "stats.json", quant::report_json(seen, stats_meta));
  // Last: a setting that has a result is complete.
  write_result(folder, {meta, setting.names, entry, setting.place, setting.of});
  return entry;
}

double action_rmse(const Json& entry) {
  return entry["action_rmse"].is_null() ? std::numeric_limits<double>::infinity() : entry["action_rmse"].get<double>();
}

}  // namespace pi0::tools
