// pi0 bench: times one fixed request by stage, and compares it with the best speed of the machine.
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "model/format_dtype.h"
#include "model/number_rounding.h"
#include "protocol/files.h"
#include "quant/attach.h"
#include "quant/report.h"
#include "tools/bench/bench_case.h"
#include "tools/bench/bench_compare.h"
#include "tools/bench/bench_gauge.h"
#include "tools/bench/bench_report.h"
#include "tools/common/commands.h"
#include "tools/common/format_fields.h"
#include "tools/common/load_policy.h"
#include "tools/common/model_options.h"
#include "tools/common/option_checks.h"
#include "tools/common/policy_parts.h"
#include "tools/common/print.h"
#include "tools/common/quant_options.h"
#include "tools/common/stop_signals.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct BenchOptions {
  ModelOptions model;
  QuantOptions quant;
  CaseSize size;
  std::size_t warmup = 1;
  std::size_t repeats = 3;
  bool without_statistics = false;
  bool all_modes = false;
  fs::path json;
  std::vector<fs::path> compare;
};

// Hooks that are on the model while it is measured.
struct Hooks {
  const quant::QuantPlan& plan;
  const model::HookClock& clock;
  quant::StatsBook& book;
  bool measured;
};

void tell(const std::string& line) { print(stderr, "bench: {}\n", line); }

void check_size(const CaseSize& size, const policy::PolicyConfig& policy) {
  const auto check = [&](const char* option, std::int64_t asked, std::int64_t most) {
    if (asked <= most) return;
    throw CLI::ValidationError(option,
                               fmt::format("{} is more than {}, which is all that {} has", asked, most, policy.name));
  };
  check("--cameras", size.cameras, static_cast<std::int64_t>(policy.robot.cameras.size()));
  check("--prompt-tokens", size.prompt_tokens, policy.max_token_len);
}

Json case_settings(const BenchOptions& options, const model::Pi0& model, const std::string& config) {
  const model::Backend& backend = *model.execution().backend;
  Json settings =
      report_meta(config, model.device(), options.model.precision, step_count(options.model, model.config()));
  settings["kernels"] = name_of(options.model.kernels);
  settings["instructions"] = backend.instructions().empty() ? Json() : Json(backend.instructions());
  settings["threads"] = at::get_num_threads();
  settings["masked"] = options.model.masked == model::MaskedInputs::skip ? "skip" : "keep";
  settings["cameras"] = options.size.cameras;
  settings["prompt_tokens"] = options.size.prompt_tokens;
  settings["batch"] = options.size.batch;
  settings["warmup"] = options.warmup;
  settings["repeats"] = options.repeats;
  settings["seed"] = options.model.seed.value_or(0);
  return settings;
}

std::vector<std::string> modes_of(const BenchOptions& options) {
  if (!options.quant.asked()) return {"unquantized"};
  if (options.all_modes) return {"unquantized", "without_statistics", "with_statistics"};
  return {options.without_statistics ? "without_statistics" : "with_statistics"};
}

// Null: they mean nothing without hooks.
Json quant_settings(const QuantOptions& options, const std::string& mode) {
  Json settings = {{"input_fmt", nullptr},
                   {"output_fmt", nullptr},
                   {"rules", nullptr},
                   {"quantize_attention", nullptr},
                   {"skip_components", nullptr}};
  if (mode == "unquantized") return settings;
  if (options.rules.empty()) {
    settings.update(fields_of(formats_of(options)));
  } else {
    settings["rules"] = options.rules.string();
  }
  settings["quantize_attention"] = name_of(options.attention);
  settings["skip_components"] = options.skip_components;
  if (options.split_errors) settings["split_errors"] = true;
  return settings;
}

// Which products are exact for everything that the run multiplies. float16 operands are rounded from bfloat16 values,
// which still fit bfloat16 then, unless a method computes with them before.
GemmGauge::Operands operands_of(model::Precision precision, at::Device device, const Hooks* hooks) {
  bool fits_bfloat16 = precision == model::Precision::bfloat16;
  if (hooks != nullptr && device.is_cpu()) {
    for (const std::optional<quant::SiteFormats>& formats : hooks->plan.matmuls) {
      if (!formats || !formats->methods.any()) continue;
      const auto is_float16 = [](const quant::NumberFormat& format) {
        return format.element == quant::Format::float16;
      };
      if (is_float16(formats->input) || is_float16(formats->weight)) fits_bfloat16 = false;
    }
  }
  return fits_bfloat16 ? GemmGauge::Operands::bfloat16 : GemmGauge::Operands::float32;
}

// Bytes of weights that each denoise step of the last run read: those that were multiplied at all, as they are stored,
// and rounded ones as codes.
std::int64_t step_weight_bytes(const model::Pi0& model, std::int64_t num_steps, const Hooks* hooks) {
  std::int64_t bytes = 0;
  std::size_t index = 0;
  for (const model::MatmulSite& site : model.sites().all()) {
    const quant::SiteFormats full_precision;
    const quant::SiteFormats formats =
        hooks != nullptr ? hooks->plan.matmuls[index].value_or(full_precision) : full_precision;
    ++index;
    const auto* const linear = dynamic_cast<const model::Linear*>(&site);
    if (linear == nullptr || site.flop == 0 || !model.is_in_each_step(site, num_steps)) continue;
    const at::Tensor& exact = linear->weight();
    const auto exact_bytes = static_cast<std::int64_t>(exact.nbytes());
    const bool rounded = !model::keeps(formats.weight, exact.scalar_type());
    if (rounded) bytes += bytes_of(formats.weight, site.out_features, site.in_features);
    if (!rounded || hooks->measured) bytes += exact_bytes;
  }
  return bytes;
}

// The count of the stage that a site belongs to.
std::int64_t& flop_of_stage(BenchMode& mode, const model::MatmulSite& site) {
  if (site.component == model::Component::vision || site.path.find("projector") != std::string::npos) {
    return mode.vision_flop;
  }
  return site.component == model::Component::language ? mode.prefix_flop : mode.denoise_flop;
}

// On a GPU: one that allocates the statistics, one without recording, and one that is recorded.
constexpr std::size_t runs_until_recorded = 3;

// Shared by the modes of one invocation.
struct Bench {
  const BenchOptions& options;
  const BenchCase& request;
  model::Pi0& model;
  GemmGauge& gauge;
  double read_bandwidth;
  const StopSignals& stop;

  BenchMode measure(const std::string& name, const Hooks* hooks);

 private:
  BenchRun run(const Hooks* hooks);
};

BenchRun Bench::run(const Hooks* hooks) {
  for (model::MatmulSite& site : model.sites().all()) site.flop = 0;
  const std::int64_t rounding = hooks != nullptr ? hooks->clock.rounding.load() : 0;
  const std::int64_t statistics = hooks != nullptr ? hooks->clock.statistics.load() : 0;
  BenchRun run{.seconds = request.run()};
  if (model.device().is_cpu()) run.rounding = run.statistics = 0;
  if (hooks != nullptr) {
    using Measured = quant::StatsBook::Measured;
    hooks->book.finish_request(hooks->measured ? Measured::yes : Measured::no);
    if (!model.device().is_cpu()) return run;
    const double share = 1e-9 / at::get_num_threads();  // of a thread's nanosecond, in seconds
    run.rounding = static_cast<double>(hooks->clock.rounding - rounding) * share;
    run.statistics = static_cast<double>(hooks->clock.statistics - statistics) * share;
  }
  return run;
}

BenchMode Bench::measure(const std::string& name, const Hooks* hooks) {
  const std::size_t product = gauge.fastest(operands_of(options.model.precision, model.device(), hooks));
  BenchMode mode{.name = name, .gemm = gauge.products()[product], .read_bandwidth = read_bandwidth};
  const std::size_t warmup = options.warmup + (model.execution().recorder ? runs_until_recorded : 0);
  for (std::size_t i = 0; i < warmup; ++i) {
    tell(fmt::format("{}: warm-up, {:.3f} s", name, run(hooks).seconds.total()));
  }
  double before = gauge.measure(product);
  while (mode.runs.size() < 3 * options.repeats && counting_runs(mode).size() < options.repeats) {
    if (stop.came() && !mode.runs.empty()) break;
    stop.check();
    BenchRun one = run(hooks);
    one.gemm_before = before;
    one.gemm_after = before = gauge.measure(product);
    mode.runs.push_back(one);
    tell(fmt::format("{}: {:.3f} s, best product {:.0f} GFLOP/s before, {:.0f} after; {} of {} count", name,
                     one.seconds.total(), one.gemm_before / 1e9, one.gemm_after / 1e9, counting_runs(mode).size(),
                     options.repeats));
  }
  for (const model::MatmulSite& site : model.sites().all()) {
    mode.flop += site.flop;
    flop_of_stage(mode, site) += site.flop;
  }
  mode.step_weight_bytes = step_weight_bytes(model, request.num_steps(), hooks);
  mode.peak_resident_gib = peak_resident_gib();
  mode.peak_device_gib = peak_device_gib(model.device());
  return mode;
}

Json bench_settings(const std::string& mode, const Bench& bench, const std::string& config) {
  Json settings = case_settings(bench.options, bench.model, config);
  settings.update(quant_settings(bench.options.quant, mode));
  return settings;
}

std::vector<BenchMode> measure_modes(Bench& bench, const quant::PlanRequest& plan_request, const std::string& config) {
  const BenchOptions& options = bench.options;
  std::vector<BenchMode> modes;
  const auto add = [&](const char* name, const Hooks* hooks) {
    if (bench.stop.came() && !modes.empty()) return;
    modes.push_back(bench.measure(name, hooks));
    modes.back().settings = bench_settings(name, bench, config);
  };
  if (options.all_modes || !options.quant.asked()) add("unquantized", nullptr);
  if (!options.quant.asked()) return modes;

  const quant::QuantPlan plan = quant::make_plan(bench.model.sites(), plan_request);
  quant::StatsBook book;
  quant::Attachment attachment(bench.model.sites(), plan, &book, tell,
                               read_calibration(bench.options.quant, bench.model.sites()));
  Hooks hooks{plan, attachment.clock(), book, false};
  if (options.all_modes || options.without_statistics) {
    attachment.measure(false);
    add("without_statistics", &hooks);
  }
  if (!options.without_statistics) {
    attachment.measure(true);
    hooks.measured = true;
    add("with_statistics", &hooks);
  }
  if (!options.quant.stats_output.empty()) {
    protocol::write_whole(options.quant.stats_output, quant::report_json(book.snapshot(), modes.back().settings));
  }
  return modes;
}

void print_bench_settings(const Json& settings, const GemmGauge& gauge) {
  for (const auto& [key, value] : settings.items()) {
    if (!value.is_null()) {
      print("{}: {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
  print("\nproduct of [968, 2048] and [2048, 16384], best rate seen\n");
  for (const GemmGauge::Product& product : gauge.products()) {
    print("{:<26} {:>20.1f} GFLOP/s\n", product.name, product.best / 1e9);
  }
  print("\n");
}

void run_bench(const BenchOptions& options) {
  PolicyParts parts = load_parts(options.model);
  check_size(options.size, parts.config);
  const quant::PlanRequest plan = plan_request(options.quant);
  if (!options.json.empty()) protocol::check_writable(options.json);
  std::vector<BenchColumn> earlier;
  if (!options.compare.empty()) earlier = read_benches(options.compare[0]);
  const std::string config = parts.config.name;
  const at::Device device = chosen_device(options.model.device);
  if (options.model.threads > 0) at::set_num_threads(options.model.threads);

  tell("measuring the machine");
  const double bandwidth = read_bandwidth(device);
  GemmGauge gauge(device);
  const StopSignals stop("bench");  // until here nothing would be lost
  forget_peak_resident();
  const std::shared_ptr<model::Pi0> model = load_model(options.model, parts.sizes, tell);
  const BenchCase request(std::move(parts), *model, options.size, options.model);
  Bench bench{options, request, *model, gauge, bandwidth, stop};
  std::vector<Json> before;  // of each mode
  for (const std::string& mode : modes_of(options)) {
    if (earlier.empty()) break;
    before.push_back(comparable_record(earlier, options.compare[0], mode, bench_settings(mode, bench, config)));
  }
  const std::vector<BenchMode> modes = measure_modes(bench, plan, config);

  print_bench_settings(modes.back().settings, gauge);
  std::vector<Json> records;
  std::vector<BenchColumn> columns;
  for (const BenchMode& mode : modes) {
    records.push_back(bench_record(mode));
    columns.emplace_back(mode.name, records.back());
  }
  print("{}", bench_table(columns));
  if (!before.empty()) print("\nagainst {}:\n", options.compare[0].string());
  for (std::size_t i = 0; i < before.size() && i < records.size(); ++i) {
    print("{}", compared_medians(before[i], records[i]));
  }
  if (!options.json.empty()) {
    const Json content = options.all_modes ? bench_records(records) : records.front();
    protocol::write_whole(options.json, content.dump(1) + "\n");
  }
  stop.check();  // the figures are of the runs so far
}

void compare(const BenchOptions& options, const CLI::App& command) {
  for (const CLI::Option* option : command.get_options()) {
    if (option->count() > 0 && option->get_name() != "--compare") {
      throw CLI::ExcludesError("--compare", option->get_name());
    }
  }
  print("{}", compare_benches(options.compare[0], options.compare[1]));
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("bench", "Time one request by stage, against the best matrix product of this machine");
  command->footer(
      "Example:\n"
      "  pi0 bench --config pi05_droid --random-weights --all-modes --input-fmt float8_e4m3 --output-fmt float16");
  const auto options = std::make_shared<BenchOptions>();
  add_place_options(*command, options->model);
  add_model_options(*command, options->model);
  add_quant_options(*command, options->quant);
  command->remove_option(command->get_option("--default-prompt"));  // the request has its own
  command->get_option("--seed")->description("Of the request (and of random weights); default: 0");
  const std::string group = "Measurement";
  command
      ->add_option("--repeats", options->repeats,
                   "Runs that should count, with the machine within 15 % of its best speed before and "
                   "after; at most three times as many are tried")
      ->check(between(1, 1000))
      ->capture_default_str()
      ->group(group);
  command->add_option("--warmup", options->warmup, "Runs before them; on a GPU three more, until its work is recorded")
      ->check(between(0, 1000))
      ->capture_default_str()
      ->group(group);
  command->add_option("--cameras", options->size.cameras, "Cameras that are seen; the others are masked")
      ->check(positive())
      ->capture_default_str()
      ->group(group);
  command->add_option("--prompt-tokens", options->size.prompt_tokens, "Prompt positions that are used")
      ->check(positive())
      ->capture_default_str()
      ->group(group);
  command->add_option("--batch", options->size.batch, "Samples that are answered together")
      ->check(between(1, 1024))
      ->capture_default_str()
      ->group(group);
  CLI::Option* no_stats = command->add_flag("--no-stats", options->without_statistics, "Round, but take no statistics")
                              ->excludes(command->get_option("--stats-output"))
                              ->group(group);
  command
      ->add_flag("--all-modes", options->all_modes,
                 "Measure unquantized, without statistics and with, one after the other")
      ->excludes(no_stats)
      ->group(group);
  command->add_option("--json", options->json, "Also write the figures to this file")->group(group);
  command
      ->add_option(
          "--compare", options->compare,
          "An earlier such file: say whether this run is faster or slower by more than the spread; its settings must "
          "be the same. Two files: show them side by side, without a run")
      ->expected(1, 2)
      ->check(CLI::ExistingFile)
      ->group(group);
  command->callback([options, command] {
    if (options->compare.size() == 2) return compare(*options, *command);
    if (options->model.config.empty() && options->model.config_file.empty() && options->model.checkpoint_dir.empty()) {
      throw CLI::RequiredError("--config, --config-file, --checkpoint-dir or two files for --compare");
    }
    if (options->model.checkpoint_dir.empty() && !options->model.random_weights) {
      throw CLI::RequiredError("--checkpoint-dir or --random-weights");
    }
    if ((options->all_modes || options->without_statistics) && !options->quant.asked()) {
      throw CLI::RequiredError("a format (--input-fmt, --weight-fmt, --output-fmt, --kv-cache-fmt) or --rules");
    }
    run_bench(*options);
  });
}

}  // namespace pi0::tools
