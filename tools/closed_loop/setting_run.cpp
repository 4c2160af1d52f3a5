#include "tools/closed_loop/setting_run.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <vector>

#include "model/text_file.h"
#include "protocol/files.h"
#include "tools/closed_loop/bounded_log.h"
#include "tools/closed_loop/child_process.h"
#include "tools/closed_loop/closed_loop_results.h"
#include "tools/closed_loop/command_template.h"
#include "tools/closed_loop/log_lines.h"
#include "tools/closed_loop/server_probe.h"
#include "tools/closed_loop/success_rules.h"
#include "tools/closed_loop/videos.h"
#include "tools/common/print.h"

namespace pi0::tools {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

// The most that is kept of a simulator's output, on disk and in memory; the middle is left out.
constexpr std::size_t max_log_bytes = std::size_t{64} << 20;

constexpr const char* rules_copy_name = "rules.json";  // in the setting's folder

std::chrono::milliseconds to_milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

// What the rules find in the scene's files, into its result.
void read_success(const ClosedLoopOptions& options, const fs::path& folder, const std::string& scene, Json& result) {
  for (const char* key : {"success_error", "episodes", "scores"}) result.erase(key);
  for (const char* key : {"n_success", "success_rate", "success_low", "success_high", "score_mean"}) {
    result[key] = nullptr;
  }
  result["n_episodes"] = options.episodes;
  try {
    std::string log = model::read_file(scene_log(folder, scene));
    const bool is_shortened = log.size() > max_log_bytes;
    add_outcomes(result, read_outcomes(options.success, {scene, std::move(log), scene_output(folder, scene),
                                                         options.episodes, is_shortened}));
  } catch (const SuccessError& error) {  // what the simulator says makes no sense
    result["success_error"] = error.what();
  }
  if (!result.contains("error")) return;
  // Its episodes say nothing about the policy: what the simulator said stays, but no rate of it.
  for (const char* key : {"success_rate", "success_low", "success_high", "score_mean"}) result[key] = nullptr;
  for (const char* key : {"score_mean_low", "score_mean_high"}) result.erase(key);
}

class SettingRun {
 public:
  SettingRun(EventLoop& events, std::uint16_t port, const ClosedLoopOptions& options, const fs::path& folder,
             const ServedSetting& setting)
      : events_(events), options_(options), folder_(folder), setting_(setting), port_(port) {}

  Json run() {
    Json entry = {{"combo", setting_.folder}};
    entry.update(setting_.names);
    entry["by_scene"] = Json::object();
    const fs::path stats = fs::absolute(folder_ / "stats.json");
    ChildProcess server(events_.io(), server_command(stats), ".", server_log());
    const std::string trouble = wait_until_ready(server);
    if (!trouble.empty()) entry["error"] = trouble;
    for (const std::string& scene : options_.scenes) {
      if (entry.contains("error") || events_.interrupted()) break;
      entry["by_scene"][scene] = run_scene(scene, server);
      if (server.has_ended()) entry["error"] = "server_crashed: " + server.ending();
    }
    if (!server.stop(to_milliseconds(options_.stop_timeout)) && !entry.contains("error")) {
      entry["error"] = fmt::format("server_killed: still ran {} s after SIGTERM", options_.stop_timeout);
    }
    if (events_.interrupted()) entry["error"] = "interrupted";
    add_statistics(entry, stats);
    add_totals(entry, folder_);
    return entry;
  }

 private:
  fs::path server_log() const { return folder_ / "server.log"; }

  std::vector<std::string> server_command(const fs::path& stats) const {
    std::vector<std::string> command = {options_.server.string()};
    const auto append = [&](const std::vector<std::string>& arguments) {
      command.insert(command.end(), arguments.begin(), arguments.end());
    };
    append(options_.server_arguments);
    if (options_.threads_each > 0) append({"--threads", std::to_string(options_.threads_each)});
    append({"--port", std::to_string(port_)});
    append(setting_.arguments);
    // Statistics need hooks, which the unquantized policy has none of.
    if (!setting_.arguments.empty()) append({"--stats-output", stats.string()});
    return command;
  }

  // Nothing once /healthz answers; else what happened instead.
  std::string wait_until_ready(const ChildProcess& server) {
    const auto deadline = Clock::now() + to_milliseconds(options_.server_timeout);
    while (!is_healthy(port_)) {
      events_.wait(Clock::now() + std::chrono::milliseconds(200), [&] { return server.has_ended(); });
      if (events_.interrupted()) return "interrupted";
      if (server.has_ended() && server.exit_code() == 2) {  // a wrong command line is wrong for every setting
        throw CLI::ValidationError("pi0-server", first_line(model::read_file(server_log())) + options_.hint);
      }
      if (server.has_ended()) {
        return fmt::format("server_start_failed: {}: {}", server.ending(), last_line(model::read_file(server_log())));
      }
      if (Clock::now() > deadline) return "server_start_timeout";
    }
    return server.has_ended() ? "server_start_failed: another program answers on its port" : "";
  }

  Json run_scene(const std::string& scene, const ChildProcess& server) {
    const fs::path output = scene_output(folder_, scene), log = scene_log(folder_, scene);
    fs::remove_all(output);  // of a run with errors
    fs::create_directories(output);
    fs::remove(log);
    const Videos before = options_.videos_from.empty() ? Videos() : videos_under(options_.videos_from);
    const std::string command = fill_command(options_.eval_command, {{"host", "localhost"},
                                                                     {"port", std::to_string(port_)},
                                                                     {"scene", scene},
                                                                     {"episodes", std::to_string(options_.episodes)},
                                                                     {"output_dir", output.string()}});
    print(stderr, "closed-loop: {}, scene {}: {}\n", setting_.folder, scene, command);
    const std::optional<RequestCounts> earlier = request_counts(port_, options_.api_key);
    Json result = Json::object();
    std::string trouble = run_simulator(command, log, server);
    const std::optional<RequestCounts> later = request_counts(port_, options_.api_key);
    if (earlier && later) {
      const RequestCounts counts = *later - *earlier;
      result["requests"] = to_json(counts);
      if (trouble.empty()) trouble = trouble_in(counts);
      if (counts.dropped > 0) {
        print(stderr, "closed-loop: the simulator left before {} had their answers\n",
              counted(static_cast<std::size_t>(counts.dropped), "request"));
      }
    } else if (trouble.empty() && (earlier || options_.counts_requests)) {
      trouble = "the server did not say how many requests it answered, see " + server_log().string();
    }
    if (!trouble.empty()) result["error"] = trouble;
    if (!options_.videos_from.empty()) collect_new_videos(options_.videos_from, before, output);
    read_success(options_, folder_, scene, result);
    say_if_nothing_was_found(result, log);
    return result;
  }

  // At once, and not after hours of other scenes.
  void say_if_nothing_was_found(const Json& result, const fs::path& log) const {
    if (result.contains("success_error")) {
      print(stderr, "closed-loop: {}\n", result["success_error"].get<std::string>());
    } else if (result["n_success"].is_number() && result["n_episodes"] != options_.episodes) {
      print(stderr, "closed-loop: asked for {} episodes, found {}\n", options_.episodes,
            result["n_episodes"].get<long>());
      return;
    } else if (result["n_success"].is_null() && !result.contains("error")) {
      print(stderr, "closed-loop: found no success with {}; the simulator's output is in {}\n",
            description(options_.success), log.string());
    } else {
      return;
    }
    print(stderr,
          "closed-loop: --resume reads this again with another of --success-regex, --episode-regex, --success-csv, "
          "--success-json and --success-videos\n");
  }

  // Some simulators catch every exception and count a failed episode, which says nothing about the policy.
  std::string trouble_in(const RequestCounts& counts) const {
    if (counts.refused > 0 || counts.failed > 0) {
      return fmt::format("the server answered {}, refused {} and failed at {} of the simulator's requests, see {}",
                         counts.answered, counts.refused, counts.failed, server_log().string());
    }
    return counts.answered == 0 ? "the server was asked for no actions" : "";
  }

  // Nothing when the command succeeds; else what happened instead.
  std::string run_simulator(const std::string& command, const fs::path& log_file, const ChildProcess& server) {
    BoundedLog log(events_.io(), log_file, max_log_bytes);
    ChildProcess simulator(events_.io(), {"/bin/sh", "-c", command}, options_.eval_dir, log.descriptor());
    events_.wait(Clock::now() + to_milliseconds(options_.eval_timeout),
                 [&] { return simulator.has_ended() || server.has_ended(); });
    std::string trouble;
    if (events_.interrupted()) {
      trouble = "interrupted";
    } else if (server.has_ended() && !simulator.has_ended()) {
      trouble = "the server ended under it";
    } else if (!simulator.has_ended()) {
      trouble = fmt::format("timeout after {} s", options_.eval_timeout);
    } else if (!simulator.has_succeeded()) {
      trouble = simulator.ending();
    }
    simulator.stop(std::chrono::seconds(10));
    log.finish();
    return trouble;
  }

  EventLoop& events_;
  const ClosedLoopOptions& options_;
  const fs::path folder_;
  const ServedSetting& setting_;
  const std::uint16_t port_;
};

}  // namespace

std::uint16_t Ports::take(std::uint16_t wanted) {
  const std::scoped_lock lock(mutex_);
  asio::io_context io;
  while (true) {
    try {
      asio::ip::tcp::acceptor probe(io, {asio::ip::tcp::v4(), wanted}, /*reuse_addr=*/true);
      const std::uint16_t port = probe.local_endpoint().port();
      if (wanted != 0 || taken_.insert(port).second) return port;
    } catch (const boost::system::system_error& error) {
      throw std::runtime_error(fmt::format("port {}, which the servers need: {}", wanted, error.code().message()));
    }
  }
}

Json run_setting(EventLoop& events, Ports& ports, const ClosedLoopOptions& options, const fs::path& folder,
                 const ServedSetting& setting) {
  fs::create_directories(folder / "videos");
  for (const char* name : {"stats.json", "server.log"}) fs::remove(folder / name);  // of a run with errors
  if (setting.names.contains("rules")) {
    protocol::write_whole(folder / rules_copy_name, model::read_file(setting.names["rules"].get<std::string>()));
  }
  return SettingRun(events, ports.take(options.port), options, folder, setting).run();
}

bool has_same_rules(const fs::path& folder, const ServedSetting& setting) {
  if (!setting.names.contains("rules")) return true;
  const fs::path copy = folder / rules_copy_name;
  return fs::exists(copy) && model::read_file(copy) == model::read_file(setting.names["rules"].get<std::string>());
}

void read_again(const ClosedLoopOptions& options, const fs::path& folder, Json& entry) {
  for (const auto& [scene, result] : entry["by_scene"].items()) {
    if (fs::exists(scene_log(folder, scene))) read_success(options, folder, scene, result);
  }
  add_totals(entry, folder);
}

}  // namespace pi0::tools
