// pi0 calibrate: statistics of what goes into every linear of the unquantized model, by site, denoise step and channel.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "protocol/files.h"
#include "quant/calibration.h"
#include "quant/calibration_recorder.h"
#include "tools/common/commands.h"
#include "tools/common/failure.h"
#include "tools/common/option_checks.h"
#include "tools/common/print.h"
#include "tools/common/quant_options.h"
#include "tools/common/stop_signals.h"
#include "tools/common/stopwatch.h"
#include "tools/sweep/calibration_summary.h"
#include "tools/sweep/sweep_model.h"
#include "tools/sweep/sweep_options.h"

namespace pi0::tools {
namespace {

struct CalibrateOptions {
  ModelOptions model;
  ObservationSource source;
  std::vector<std::string> skip_components;
  std::vector<double> percentiles = {99, 99.9, 99.99};
  double memory_gib = 4;
  std::filesystem::path output;
};

void tell_progress(const std::string& line) { print(stderr, "calibrate: {}\n", line); }

void run_pass(const SweepModel& model, quant::CalibrationRecorder& recorder, const StopSignals& stop) {
  for (const SweepCase& one : model.cases()) {
    try {
      model.sample(one);
      recorder.finish_request();
    } catch (const Stopped&) {
      throw;
    } catch (const std::exception& error) {
      throw std::runtime_error(fmt::format("observation {}: {}", one.name, failure_text(error)));
    }
  }
  recorder.finish_pass([&stop] { stop.check(); });
}

void record(const SweepModel& model, quant::CalibrationRecorder& recorder, const StopSignals& stop) {
  Stopwatch clock;
  for (std::size_t pass = 1; !recorder.is_complete(); ++pass) {
    run_pass(model, recorder, stop);
    tell_progress(fmt::format("pass {} of {}: {}, {} of {} done, {:.1f} s", pass, pass + recorder.passes_left(),
                              counted(model.cases().size(), "observation"), recorder.completed(),
                              counted(recorder.site_count(), "layer"), clock.lap()));
  }
}

void write_file(const CalibrateOptions& options, const SweepModel& model, const quant::CalibrationRecorder& recorder) {
  nlohmann::ordered_json meta = model.meta();
  meta["n_observations"] = model.cases().size();
  meta["percentiles"] = options.percentiles;
  meta["skip_components"] = options.skip_components;
  meta["weights"] = quant::weights_fingerprint(model.model().sites());
  protocol::WholeFile whole(options.output);
  quant::write_calibration([&](const void* data, std::size_t size) { whole.write(data, size); }, recorder.tensors(),
                           meta);
  whole.keep();
}

void calibrate(const CalibrateOptions& options) {
  const StopSignals stop("calibrate");
  protocol::check_writable(options.output);
  SweepModel model(options.model, options.source, tell_progress, [&stop] { stop.check(); });
  model.load_weights();
  quant::CalibrationRecorder recorder(model.model().sites(),
                                      {.percentiles = options.percentiles,
                                       .num_steps = model.steps(),
                                       .skip = skipped(options.skip_components),
                                       .memory_bytes = static_cast<std::int64_t>(options.memory_gib * (1 << 30))});
  record(model, recorder, stop);
  stop.check();
  write_file(options, model, recorder);
  print("{}", calibration_summary(model.model().sites(), recorder.tensors()));
  print("{}: {} over {}\n", options.output.string(), counted(recorder.site_count(), "layer"),
        counted(model.cases().size(), "observation"));
}

void add_options(CLI::App& command, CalibrateOptions& options) {
  constexpr const char* calibration = "Calibration";
  add_observed_model_options(command, options.model);
  add_observation_options(command, options.source, calibration);
  add_skip_option(command, options.skip_components, "Components that are left out, separated by commas")
      ->group(calibration);
  command.add_option("--percentiles", options.percentiles, "Percentiles of the magnitudes, with commas between them")
      ->delimiter(',')
      ->check(between(0, 100))
      ->default_str("99,99.9,99.99")
      ->group(calibration);
  command
      .add_option("--memory-gib", options.memory_gib,
                  "Memory for activations that wait until their percentiles are computed; if they do not fit, the "
                  "observations run several times")
      ->check(between(0.001, 1e6))
      ->capture_default_str()
      ->group(calibration);
  command.add_option("--output", options.output, "Safetensors file to write")->required()->group(calibration);
}

void check_percentiles(const CalibrateOptions& options) {
  if (std::set<double>(options.percentiles.begin(), options.percentiles.end()).size() < options.percentiles.size()) {
    throw CLI::ValidationError("--percentiles", "a number stands there twice, expected each once");
  }
}

}  // namespace

void add_calibrate(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "calibrate", "Record what goes into every linear layer: largest values, mean squares and percentiles by channel");
  command->footer(
      "Example:\n  pi0 calibrate --config pi05_droid --checkpoint-dir DIR --observations policy_records --output "
      "calibration.safetensors");
  const auto options = std::make_shared<CalibrateOptions>();
  add_options(*command, *options);
  command->callback([options, command] {
    check_observations(*command);
    check_percentiles(*options);
    calibrate(*options);
  });
}

}  // namespace pi0::tools
