// pi0 sweep: every pair of formats over some observations on one loaded model, against its own
// unquantized actions. Reference: pi0-quant eval_harness.py run_sweep.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/json_fields.h"
#include "protocol/files.h"
#include "quant/attach.h"
#include "quant/report.h"
#include "tools/common/commands.h"
#include "tools/common/model_options.h"
#include "tools/common/option_checks.h"
#include "tools/common/print.h"
#include "tools/common/quant_options.h"
#include "tools/common/results.h"
#include "tools/common/stop_signals.h"
#include "tools/common/stopwatch.h"
#include "tools/sweep/action_errors.h"
#include "tools/sweep/sweep_model.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct SweepOptions {
  ModelOptions model;
  QuantOptions quant;  // attention and skipped components
  FormatLists formats;
  std::vector<fs::path> rules;
  std::string sensitivity;  // layers, components or nothing
  std::optional<double> budget;
  struct {
    std::size_t index = 1;
    std::size_t of = 1;
  } shard;
  ObservationSource source;
  fs::path output;
  bool resume = false;
};

void tell(const std::string& line) { tools::print(stderr, "sweep: {}\n", line); }

void read_shard(const std::string& text, SweepOptions& options) {
  const char* const end = text.data() + text.size();
  const auto [slash, error] = std::from_chars(text.data(), end, options.shard.index);
  const bool split = error == std::errc() && slash != end && *slash == '/';
  const auto [rest, second] = std::from_chars(split ? slash + 1 : end, end, options.shard.of);
  if (split && second == std::errc() && rest == end && options.shard.index >= 1 &&
      options.shard.index <= options.shard.of) {
    return;
  }
  throw CLI::ValidationError("--shard", "found '" + text + "', expected I/N with I from 1 to N");
}

// One way to quantize the model.
struct Setting {
  std::string folder;  // of its results, in --output
  Json names;          // what it is, first in its entry
  quant::PlanRequest plan;
  std::size_t place = 0;  // in the sweep
  std::size_t of = 1;     // settings of the sweep
};

class Sweep {
 public:
  explicit Sweep(const SweepOptions& options)
      : options_(options), model_(options.model, options.source, tell, [this] { stop_.check(); }) {
    meta_ = report_meta(model_.config(), chosen_device(options.model.device), options.model.precision, model_.steps());
    meta_["checkpoint"] = options.model.random_weights ? "random weights" : options.model.checkpoint_dir.string();
    meta_["kernels"] = name_of(options.model.kernels);
    meta_["masked"] = options.model.masked == model::MaskedInputs::skip ? "skip" : "keep";
    meta_["observations"] = model_.observations();
    meta_["seed"] = model_.seed();
    meta_["quantize_attention"] = name_of(options.quant.attention);
    meta_["skip_components"] = options.quant.skip_components;
  }

  void run() {
    try {
      run_settings();
    } catch (const Stopped& stopped) {
      throw std::runtime_error(fmt::format("{}; --resume continues", stopped.what()));
    }
  }

 private:
  void run_settings() {
    if (options_.sensitivity.empty()) {
      const std::vector<Json> entries = measured(own_share(chosen_settings()));
      if (options_.shard.of == 1) return write_summary(options_.output, entries);
      return tell(fmt::format("shard {} of {} is done; pi0 merge makes the summary of all", options_.shard.index,
                              options_.shard.of));
    }
    const std::vector<Json> ranking = rank(measured(one_by_one()));
    protocol::write_whole(options_.output / "sensitivity.json", text_of(ranking));
    protocol::write_whole(options_.output / "sensitivity.csv", table_of(ranking));
    print(ranking);
    if (options_.budget) keep_budget(ranking);
  }

  quant::FormatPair only_pair() const {
    if (options_.formats.input_fmts.size() != 1 || options_.formats.output_fmts.size() != 1) {
      throw std::invalid_argument(
          "--sensitivity ranks under one pair of formats: give --input-fmts and "
          "--output-fmts one each");
    }
    return {quant::parse_format(options_.formats.input_fmts[0]), quant::parse_format(options_.formats.output_fmts[0])};
  }

  std::vector<Setting> chosen_settings() const {
    std::vector<Setting> settings;
    QuantOptions quant = options_.quant;
    for (const fs::path& rules : options_.rules) {
      quant.rules = rules;
      const std::string folder = rules_folder(rules);
      if (std::ranges::any_of(settings, [&](const Setting& s) { return s.folder == folder; })) {
        throw std::invalid_argument(
            fmt::format("--rules: two files are named {}; their results would share a folder", rules.stem().string()));
      }
      settings.push_back(
          {folder, {{"input_fmt", nullptr}, {"output_fmt", nullptr}, {"rules", rules.string()}}, plan_request(quant)});
    }
    if (!settings.empty()) return settings;
    for (const std::string& input : options_.formats.input_fmts) {
      for (const std::string& output : options_.formats.output_fmts) {
        quant.input_fmt = input;
        quant.output_fmt = output;
        settings.push_back(
            {pair_folder(input, output), {{"input_fmt", input}, {"output_fmt", output}}, plan_request(quant)});
      }
    }
    return settings;
  }

  // Every n-th setting of the sweep, from the shard's index on.
  std::vector<Setting> own_share(std::vector<Setting> all) const {
    std::vector<Setting> own;
    for (std::size_t i = 0; i < all.size(); ++i) {
      all[i].place = i;
      all[i].of = all.size();
      if (i % options_.shard.of == options_.shard.index - 1) own.push_back(std::move(all[i]));
    }
    return own;
  }

  // A setting per site, or per component, that has a part in the actions.
  std::vector<Setting> one_by_one() {
    const quant::FormatPair formats = only_pair();
    load();
    quant::PlanRequest all = plan_request(options_.quant);
    all.rules = quant::one_pair(formats);
    const quant::QuantPlan plan = quant::make_plan(model_.model().sites(), all);
    std::vector<Setting> settings;
    std::size_t index = 0;
    for (const model::MatmulSite& site : model_.model().sites().all()) {
      if (!plan[index++] || site.flop == 0) continue;
      const std::string component(model::name_of(site.component));
      Setting setting{options_.sensitivity, {}, all};
      if (options_.sensitivity == "layers") {
        setting.folder += "/" + site.path;
        setting.names = {{"layer", site.path}, {"component", component}, {"kind", model::name_of(site.kind)}};
        setting.plan.rules = {{site.path, std::nullopt, formats}};
      } else {
        setting.folder += "/" + component;
        setting.names = {{"component", component}};
        setting.plan.rules = {{"", site.component, formats}};
        if (std::ranges::any_of(settings, [&](const Setting& s) { return s.folder == setting.folder; })) continue;
      }
      setting.names["input_fmt"] = options_.formats.input_fmts[0];
      setting.names["output_fmt"] = options_.formats.output_fmts[0];
      settings.push_back(std::move(setting));
    }
    return settings;
  }

  // The most sensitive first; actions that are not finite before all.
  static std::vector<Json> rank(std::vector<Json> entries) {
    std::ranges::stable_sort(entries, std::greater{}, [](const Json& entry) { return rmse_of(entry); });
    return entries;
  }

  static double rmse_of(const Json& entry) {
    return entry["action_rmse"].is_null() ? std::numeric_limits<double>::infinity()
                                          : entry["action_rmse"].get<double>();
  }

  static void print(const std::vector<Json>& ranking) {
    constexpr std::size_t shown = 20;
    for (std::size_t i = 0; i < std::min(shown, ranking.size()); ++i) {
      const Json& entry = ranking[i];
      tools::print("{:4} {:.3e} {}\n", i + 1, rmse_of(entry),
                   entry.value("layer", entry["component"].get<std::string>()));
    }
    if (ranking.size() > shown) tools::print("     and {} less sensitive ones\n", ranking.size() - shown);
  }

  // The most of the least sensitive layers that keep the action RMSE within the budget: bisection over their number,
  // where each step runs the model.
  void keep_budget(const std::vector<Json>& ranking) {
    const quant::FormatPair formats = only_pair();
    const auto setting_of = [&](std::size_t count) {
      Setting setting{fmt::format("budget/{}", count),
                      {{"layers", count},
                       {"input_fmt", options_.formats.input_fmts[0]},
                       {"output_fmt", options_.formats.output_fmts[0]}},
                      plan_request(options_.quant)};
      setting.plan.rules.clear();
      for (std::size_t i = ranking.size() - count; i < ranking.size(); ++i) {
        setting.plan.rules.push_back({ranking[i]["layer"].get<std::string>(), std::nullopt, formats});
      }
      return setting;
    };
    std::size_t within = 0, beyond = ranking.size() + 1;
    Json best = {{"layers", 0}, {"action_rmse", 0.0}};
    while (within + 1 < beyond) {
      const std::size_t count = (within + beyond) / 2;
      const Json entry = measured({setting_of(count)}).front();
      if (rmse_of(entry) <= *options_.budget) {
        within = count;
        best = entry;
      } else {
        beyond = count;
      }
    }
    Json rules = Json::array();
    for (const quant::Rule& rule : setting_of(within).plan.rules) {
      rules.push_back({{"match", rule.match},
                       {"input_fmt", quant::name_of(formats.input)},
                       {"output_fmt", quant::name_of(formats.output)}});
    }
    protocol::write_whole(options_.output / "rules.json", text_of({{"rules", rules}}));
    Json result = {{"budget", *options_.budget}, {"layers_of", ranking.size()}};
    result.update(best);
    protocol::write_whole(options_.output / "budget.json", text_of(result));
    tell(fmt::format("{} of {} layers within an action RMSE of {}: {:.4g}; rules in {}", within, ranking.size(),
                     *options_.budget, rmse_of(best), (options_.output / "rules.json").string()));
  }

  std::vector<Json> measured(const std::vector<Setting>& settings) {
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
                       settings[i].folder, rmse_of(entries[i]), entries[i]["inference_time_s"].get<double>(), left));
    }
    return entries;
  }

  // The entry that an earlier run left for a setting; null when there is none.
  Json earlier_entry(const Setting& setting) const {
    const fs::path file = options_.output / setting.folder / "result.json";
    if (!fs::exists(file)) return {};
    if (!options_.resume) {
      throw std::runtime_error(file.string() +
                               ": exists already; --resume continues such a sweep, "
                               "or choose another --output");
    }
    if (!fs::exists(file.parent_path() / "stats.json")) return {};  // incomplete: measured again
    const SweepResult result = read_result(file);
    Json meta = meta_;
    meta.update(setting.names);
    check_same_settings(file, result.meta, "this sweep", meta);
    if (result.names != setting.names) {
      throw std::runtime_error(fmt::format("{}: 'names' is {}, expected {}; remove the file to measure this again",
                                           file.string(), model::shown(result.names), model::shown(setting.names)));
    }
    return result.entry;
  }

  // Only when there is something to run.
  void load() {
    if (model_.is_loaded()) return;
    fs::create_directories(options_.output);
    protocol::check_writable(options_.output / "summary.json");
    model_.load();
  }

  Json measure(const Setting& setting) {
    quant::StatsBook book;
    const auto hooks = quant::attach(model_.model().sites(), setting.plan, &book, tell);
    ActionErrors errors;
    Stopwatch clock;
    double seconds = 0;
    for (const SweepCase& one : model_.cases()) {
      clock.lap();
      const at::Tensor raw = model_.sample(one);
      seconds += clock.lap();
      book.finish_request(quant::StatsBook::Measured::yes);
      errors.add_raw(one.raw, raw);
      if (raw.isfinite().all().item<bool>()) {
        errors.add_answer(one.answer, model_.answer(one, raw));
      } else {
        errors.add_nonfinite();
      }
    }
    Json entry = setting.names;
    errors.write(entry, model_.has_robot());
    const quant::StatsSnapshot seen = book.snapshot();
    for (const char* kind : {"linear", "attention"}) {
      Json& components = entry[std::string(kind) == "linear" ? "components" : "components_attention"] = Json::object();
      for (const quant::ComponentRow& row : quant::component_rows(seen, kind)) {
        components[row.component] = row.mean_rmse ? Json(*row.mean_rmse) : Json();
      }
    }
    entry["n_observations"] = model_.cases().size();
    entry["inference_time_s"] = seconds;
    Json meta = meta_;
    meta.update(setting.names);
    const fs::path folder = options_.output / setting.folder;
    fs::create_directories(folder);
    protocol::write_whole(folder / "stats.json", quant::report_json(seen, meta));
    // Last: a setting that has a result is complete.
    write_result(folder, {meta, setting.names, entry, setting.place, setting.of});
    return entry;
  }

  const SweepOptions& options_;
  StopSignals stop_{"sweep"};
  SweepModel model_;
  Json meta_;  // what results must share to be compared
};

}  // namespace

void add_sweep(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("sweep", "Run pairs of formats over observations: statistics and action errors of each");
  command->footer(
      "Example:\n  pi0 sweep --config pi05_droid --checkpoint-dir DIR --observations policy_records --output sweep");
  const auto options = std::make_shared<SweepOptions>();
  add_place_options(*command, options->model);
  add_model_options(*command, options->model);
  command->get_option("--seed")->description("Of noise and synthetic observations; default: 0");
  add_scope_options(*command, options->quant);
  const std::string group = "Sweep";
  add_format_lists(*command, options->formats, group);
  CLI::Option* rules = command->add_option("--rules", options->rules, "Files of formats per layer, instead of pairs")
                           ->delimiter(',')
                           ->check(CLI::ExistingFile)
                           ->excludes("--input-fmts")
                           ->excludes("--output-fmts")
                           ->group(group);
  CLI::Option* sensitivity =
      choose(command->add_option(
                 "--sensitivity", options->sensitivity,
                 "Instead: one of the layers or components at a time under one pair, ranked by action RMSE"),
             {"layers", "components"})
          ->excludes(rules)
          ->group(group);
  command
      ->add_option("--budget", options->budget,
                   "With --sensitivity layers: a rules file for as many layers as keep the action RMSE within this")
      ->check(positive())
      ->needs(sensitivity)
      ->group(group);
  command
      ->add_option_function<std::string>(
          "--shard", [options](const std::string& text) { read_shard(text, *options); },
          "I/N: the I-th (from 1) of N runs that share the settings; pi0 merge joins their results")
      ->excludes(sensitivity)
      ->group(group);
  CLI::Option* recorded =
      command->add_option("--observations", options->source.recorded, "Folder that pi0-server --record wrote")
          ->check(CLI::ExistingDirectory)
          ->group(group);
  CLI::Option* synthetic = command
                               ->add_option("--synthetic", options->source.synthetic,
                                            "Instead: this many synthetic observations, from --seed")
                               ->check(between(1, 100'000))
                               ->excludes(recorded)
                               ->group(group);
  CLI::Option* tensors = command
                             ->add_option("--inputs", options->source.tensors,
                                          "Instead, for the bare model: safetensors as pi0 infer --inputs takes them")
                             ->delimiter(',')
                             ->check(CLI::ExistingFile)
                             ->excludes(recorded)
                             ->excludes(synthetic)
                             ->group(group);
  command->add_option("--output", options->output, "Folder of the results")->required()->group(group);
  command->add_flag("--resume", options->resume, "Continue an interrupted sweep")->group(group);
  command->callback([options, recorded, synthetic, tensors] {
    if (recorded->count() + synthetic->count() + tensors->count() == 0) {
      throw CLI::RequiredError("--observations, --synthetic or --inputs");
    }
    if (options->budget && options->sensitivity != "layers") {
      throw CLI::ValidationError("--budget", "needs the ranking of --sensitivity layers");
    }
    Sweep(*options).run();
  });
}

}  // namespace pi0::tools
