// The command line of pi0 closed-loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tools/closed_loop/success_rules.h"
#include "tools/common/cli_fwd.h"
#include "tools/common/format_options.h"

namespace pi0::tools {

struct ClosedLoopOptions {
  bool unquantized = false;  // the policy as it is, first
  bool has_formats = true;   // those of `formats`
  FormatLists formats;
  std::vector<std::filesystem::path> rules;
  std::string preset;
  std::filesystem::path simulator_dir;
  std::string python = "python3";
  std::string eval_command;
  std::filesystem::path eval_dir = ".";
  std::filesystem::path videos_from;
  SuccessRules success;
  bool has_rules = false;  // on the command line, or of a preset
  std::int64_t episodes = 5;
  std::vector<std::string> scenes = {"1", "2", "3"};
  std::uint16_t port = 0;                                                // 0: a free one per server
  double server_timeout = 300, eval_timeout = 3600, stop_timeout = 120;  // seconds
  std::filesystem::path output = "results";
  std::size_t jobs = 1;          // servers at a time
  std::size_t threads_each = 0;  // of servers at the same time; 0: not set
  bool resume = false;
  std::filesystem::path server;
  bool counts_requests = true;  // the server does: it is ours
  std::string api_key;          // that the server wants
  std::vector<std::string> server_arguments;
  std::string hint;  // for an error in server_arguments: the option of pi0 closed-loop that one of them resembles
};

// Options that `command` does not know become the server's. `options` must outlive `command`.
void add_closed_loop_options(CLI::App& command, ClosedLoopOptions& options);

// After parsing: fills in what --preset stands for, the server and its arguments, and checks all that can be checked
// before a server starts. Throws CLI::ParseError for a wrong command line, std::invalid_argument for a wrong command,
// pattern or folder and for what a preset lacks, and policy::PolicyConfigError for a policy that pi0-server does not
// know.
void settle(ClosedLoopOptions& options, const CLI::App& command);

}  // namespace pi0::tools
