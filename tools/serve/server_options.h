// The command line of pi0-server: openpi's serve_policy.py, pi0-quant's serve_quant.py and our own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "server/recorder.h"
#include "server/server.h"
#include "tools/common/cli_fwd.h"
#include "tools/common/default_checkpoints.h"
#include "tools/common/model_options.h"
#include "tools/common/quant_options.h"

namespace pi0::tools {

struct ProgramOptions {
  ModelOptions model;
  QuantOptions quant;
  double stats_interval = 0;  // seconds between writes of the statistics; 0: only at the end
  server::ServerOptions server;
  std::size_t max_batch = 1;          // requests that share a call of the model
  std::size_t max_observations = 16;  // of one request
  std::filesystem::path api_key_file;
  server::RecorderOptions record;
  std::string env = default_environment;
  std::string policy;  // "policy:checkpoint", "policy:default" or nothing
  int gpu = 0;         // set only with --gpu
  bool list_layers = false;
  bool dry_run = false;
  std::string log_level = "info";
  std::filesystem::path log_file;
  std::size_t log_file_mib = 64;  // of one file; four are kept
  std::string openpi_dir;         // accepted for pi0-quant's command lines; nothing needs it
};

// `options` must outlive `app`.
void add_program_options(CLI::App& app, ProgramOptions& options);

// After parsing, replaces other programs' options by ours: --gpu by a device, openpi's `--record policy:...` by both
// options, policy:default by the environment's policy and checkpoint in openpi's cache. Throws
// CLI::ParseError for contradictions and std::runtime_error when the default checkpoint is not on
// this machine.
void settle(ProgramOptions& options, const CLI::App& app);

}  // namespace pi0::tools
