// pi0 sweep: every pair of formats over some observations on one loaded model, against its own
// unquantized actions. Reference: pi0-quant eval_harness.py run_sweep.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <bit>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <vector>

#include "tools/common/commands.h"
#include "tools/common/print.h"
#include "tools/common/stop_signals.h"
#include "tools/sweep/sensitivity.h"
#include "tools/sweep/setting.h"
#include "tools/sweep/summary.h"
#include "tools/sweep/sweep_options.h"
#include "tools/sweep/sweep_run.h"

namespace pi0::tools {
namespace {

void print_estimate(const SweepOptions& options, SweepRun& run) {
  if (options.sensitivity.empty()) return run.print_estimate(shard_settings(options), 0);
  const std::vector<Setting> settings = one_by_one(options, run.sites());
  run.print_estimate(settings, options.budget ? static_cast<std::size_t>(std::bit_width(settings.size())) : 0);
}

void run_sweep(const SweepOptions& options) {
  SweepRun run(options);
  try {
    if (options.dry_run) return print_estimate(options, run);
    if (!options.sensitivity.empty()) return rank_sensitivity(options, run);
    const std::vector<nlohmann::ordered_json> entries = run.entries_of(shard_settings(options));
    if (options.shard.of == 1) return write_summary(options.output, entries);
    print(stderr, "sweep: shard {} of {} is done; pi0 merge makes the summary of all\n", options.shard.index,
          options.shard.of);
  } catch (const Stopped& stopped) {
    throw std::runtime_error(fmt::format("{}; --resume continues", stopped.what()));
  }
}

}  // namespace

void add_sweep(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("sweep", "Run pairs of formats over observations: statistics and action errors of each");
  command->footer(
      "Example:\n  pi0 sweep --config pi05_droid --checkpoint-dir DIR --observations policy_records --output sweep");
  const auto options = std::make_shared<SweepOptions>();
  add_sweep_options(*command, *options);
  command->callback([options, command] {
    check(*options, *command);
    run_sweep(*options);
  });
}

}  // namespace pi0::tools
