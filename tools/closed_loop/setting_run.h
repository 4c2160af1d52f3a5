// One setting of pi0 closed-loop: its server, and the simulator's scenes against it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "tools/closed_loop/closed_loop_options.h"
#include "tools/closed_loop/event_loop.h"
#include "tools/closed_loop/served_setting.h"

namespace pi0::tools {

// Ports for servers that run at the same time. Threads may share it.
class Ports {
 public:
  // A free port, each once; or `wanted`, unless that is 0. Throws std::runtime_error when it is taken.
  std::uint16_t take(std::uint16_t wanted);

 private:
  std::mutex mutex_;
  std::set<std::uint16_t> taken_;
};

// Starts the server, runs every scene, stops the server, and returns the setting's entry. `folder` gets the files of
// the run. A server or simulator that does not do its work is recorded in the entry as an `error`, and so is an
// interruption. Throws CLI::ValidationError when the server refuses its command line, which every setting's server
// would, and std::runtime_error when the port is taken or a file cannot be written.
nlohmann::ordered_json run_setting(EventLoop& events, Ports& ports, const ClosedLoopOptions& options,
                                   const std::filesystem::path& folder, const ServedSetting& setting);

// Whether an earlier run in `folder` had the rules that the setting's file has now.
bool has_same_rules(const std::filesystem::path& folder, const ServedSetting& setting);

// Reads how the scenes of an earlier run went again, by the rules of now.
void read_again(const ClosedLoopOptions& options, const std::filesystem::path& folder, nlohmann::ordered_json& entry);

}  // namespace pi0::tools
