#include "tools/sweep/sweep_options.h"

#include <CLI/CLI.hpp>
#include <charconv>

#include "tools/common/option_checks.h"

namespace pi0::tools {
namespace {

constexpr const char* group = "Sweep";  // in --help

SweepOptions::Shard read_shard(const std::string& text) {
  SweepOptions::Shard shard;
  const char* const end = text.data() + text.size();
  const auto [slash, error] = std::from_chars(text.data(), end, shard.index);
  const bool split = error == std::errc() && slash != end && *slash == '/';
  const auto [rest, second] = std::from_chars(split ? slash + 1 : end, end, shard.of);
  if (split && second == std::errc() && rest == end && shard.index >= 1 && shard.index <= shard.of) return shard;
  throw CLI::ValidationError("--shard", "found '" + text + "', expected I/N with I from 1 to N");
}

void add_setting_options(CLI::App& command, SweepOptions& options) {
  add_format_lists(command, options.formats, group);
  add_calibration_option(command, options.quant)->group(group);
  CLI::Option* rules =
      command.add_option("--rules", options.rules, "Instead of pairs: JSON files of formats per layer")
          ->delimiter(',')
          ->check(CLI::ExistingFile)
          ->excludes("--input-fmts")
          ->excludes("--weight-fmts")
          ->excludes("--output-fmts")
          ->excludes("--presets")
          ->excludes("--pairs")
          ->excludes("--kv-cache-fmt")
          ->excludes("--vector-fmt")
          ->excludes("--rotate")
          ->excludes("--smooth")
          ->excludes("--clip")
          ->excludes("--accumulators")
          ->excludes("--output-noise")
          ->group(group);
  CLI::Option* sensitivity =
      choose(command.add_option("--sensitivity", options.sensitivity,
                                "Instead: quantize one layer or component at a time and rank them by action RMSE"),
             {"layers", "components"})
          ->excludes(rules)
          ->group(group);
  command
      .add_option("--budget", options.budget,
                  "With --sensitivity layers: a rules file for as many layers as keep the action RMSE within this")
      ->check(positive())
      ->needs(sensitivity)
      ->group(group);
  command
      .add_option_function<std::string>(
          "--shard", [&options](const std::string& text) { options.shard = read_shard(text); },
          "I/N: the I-th (from 1) of N runs that share the settings; pi0 merge joins their results")
      ->excludes(sensitivity)
      ->group(group);
}

void add_floor_option(CLI::App& command, SweepOptions& options) {
  command
      .add_option("--floor-repeats", options.floor_repeats,
                  "Runs without quantization that measure the action RMSE of rounding alone, the floor; 0: none")
      ->check(between(0, 1000))
      ->capture_default_str()
      ->group(group);
}

}  // namespace

void add_observation_options(CLI::App& command, ObservationSource& source, const char* group) {
  CLI::Option* recorded =
      command.add_option("--observations", source.recorded, "Folder that pi0-server --record wrote")
          ->check(CLI::ExistingDirectory)
          ->group(group);
  CLI::Option* synthetic =
      command.add_option("--synthetic", source.synthetic, "Instead: this many synthetic observations, from --seed")
          ->check(between(1, 100'000))
          ->excludes(recorded)
          ->group(group);
  command
      .add_option("--inputs", source.tensors,
                  "Instead, for the bare model: safetensors as pi0 infer --inputs takes them")
      ->delimiter(',')
      ->check(CLI::ExistingFile)
      ->excludes(recorded)
      ->excludes(synthetic)
      ->group(group);
}

void add_observed_model_options(CLI::App& command, ModelOptions& options) {
  add_place_options(command, options);
  add_model_options(command, options);
  command.get_option("--seed")->description("Of noise and synthetic observations; default: 0");
}

void check_observations(const CLI::App& command) {
  if (command.count("--observations") + command.count("--synthetic") + command.count("--inputs") == 0) {
    throw CLI::RequiredError("--observations, --synthetic or --inputs");
  }
}

void add_sweep_options(CLI::App& command, SweepOptions& options) {
  add_observed_model_options(command, options.model);
  add_scope_options(command, options.quant);
  add_setting_options(command, options);
  add_observation_options(command, options.source, group);
  add_floor_option(command, options);
  command.add_option("--output", options.output, "Folder of the results")->required()->group(group);
  command
      .add_flag(
          "--dry-run", options.dry_run,
          "Load the model, run one observation, and print settings, observations, and an estimate of time and memory")
      ->group(group);
  command.add_flag("--resume", options.resume, "Continue an interrupted sweep")->group(group);
}

void check(const SweepOptions& options, const CLI::App& command) {
  check_observations(command);
  if (options.budget && options.sensitivity != "layers") {
    throw CLI::ValidationError("--budget", "needs the ranking of --sensitivity layers");
  }
}

}  // namespace pi0::tools
