// What both programs do to their command lines, and how they end.
#pragma once

#include <CLI/CLI.hpp>

namespace pi0::tools {

// Parses with `-` and `_` alike in option names, which runs the callbacks of `app` and of the chosen
// subcommand, and returns the exit code: 0 orderly, 2 usage, 1 anything else. An exception of a
// callback becomes one line on stderr, as does a checkpoint that is cut short while it is read.
int run_program(CLI::App& app, int argc, char** argv);

}  // namespace pi0::tools
