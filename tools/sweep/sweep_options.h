// The command line of pi0 sweep.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tools/common/cli_fwd.h"
#include "tools/common/format_options.h"
#include "tools/common/model_options.h"
#include "tools/common/quant_options.h"
#include "tools/sweep/sweep_model.h"

namespace pi0::tools {

struct SweepOptions {
  ModelOptions model;
  QuantOptions quant;  // attention and skipped components
  FormatLists formats;
  std::vector<std::filesystem::path> rules;
  std::string sensitivity;  // layers, components or nothing
  std::optional<double> budget;
  std::int64_t floor_repeats = 5;  // runs that measure what rounding alone does
  bool dry_run = false;
  struct Shard {
    std::size_t index = 1;  // from 1
    std::size_t of = 1;
  } shard;
  ObservationSource source;
  std::filesystem::path output;
  bool resume = false;
};

// Options of commands that run a model over observations. What they fill must outlive `command`; `group` is the
// heading in --help.
void add_observed_model_options(CLI::App& command, ModelOptions& options);
void add_observation_options(CLI::App& command, ObservationSource& source, const char* group);
void check_observations(const CLI::App& command);  // after parsing: throws CLI::ParseError without any

// `options` must outlive `command`.
void add_sweep_options(CLI::App& command, SweepOptions& options);

// After parsing: throws CLI::ParseError for options that are missing or do not go together.
void check(const SweepOptions& options, const CLI::App& command);

}  // namespace pi0::tools
