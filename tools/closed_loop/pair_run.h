// One pair of formats of pi0 closed-loop: its server, and the simulator's scenes against it.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "tools/closed_loop/closed_loop_options.h"
#include "tools/closed_loop/event_loop.h"

namespace pi0::tools {

// Starts the server, runs every scene, stops the server, and returns the pair's entry. `folder` gets the files of the
// run. A server or simulator that does not do its work is recorded in the entry as an `error`, and so is an
// interruption. Throws CLI::ValidationError when the server refuses its command line, which every pair's server would,
// and std::runtime_error when the port is taken or a file cannot be written.
nlohmann::ordered_json run_pair(EventLoop& events, const ClosedLoopOptions& options,
                                const std::filesystem::path& folder, const std::string& input_fmt,
                                const std::string& output_fmt);

}  // namespace pi0::tools
