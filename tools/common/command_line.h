// How both programs parse their command lines, and their exit codes.
#pragma once

#include "tools/common/cli_fwd.h"

namespace pi0::tools {

// Parses with `-` and `_` alike in option names, which runs the callbacks of `app` and of the chosen
// subcommand, and returns the exit code: 0 success, 2 usage, 1 anything else. An exception of a
// callback becomes one line on stderr, and so does a checkpoint that is truncated while it is read.
// Before that, libtorch's thread count becomes the number of cores that the process may use.
int run_program(CLI::App& app, int argc, char** argv);

// Ends the process with what was written so far, and without the destructors of static objects: LibTorch's take a third
// of the time that `pi0 --version` takes.
[[noreturn]] void end_program(int exit_code);

}  // namespace pi0::tools
