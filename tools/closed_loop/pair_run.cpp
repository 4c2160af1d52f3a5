#include "tools/closed_loop/pair_run.h"

#include <fmt/format.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cctype>
#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <vector>

#include "model/text_file.h"
#include "tools/closed_loop/bounded_log.h"
#include "tools/closed_loop/child_process.h"
#include "tools/closed_loop/closed_loop_results.h"
#include "tools/closed_loop/health_check.h"
#include "tools/closed_loop/simulator.h"
#include "tools/common/print.h"

namespace pi0::tools {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

// Of a simulator's output, on disk and in memory; the middle is left out.
constexpr std::size_t max_log_bytes = std::size_t{64} << 20;

std::chrono::milliseconds to_milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

std::uint16_t free_port(std::uint16_t wanted) {
  asio::io_context io;
  try {
    asio::ip::tcp::acceptor probe(io, {asio::ip::tcp::v4(), wanted}, /*reuse_addr=*/true);
    return probe.local_endpoint().port();
  } catch (const boost::system::system_error& error) {
    throw std::runtime_error(fmt::format("port {}, which the servers need: {}", wanted, error.code().message()));
  }
}

// A program's last and first line of output, for error messages.
std::string last_line(const fs::path& log) {
  std::string text = model::read_file(log);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) text.pop_back();
  return text.substr(text.find_last_of('\n') + 1);
}

std::string first_line(const fs::path& log) {
  const std::string text = model::read_file(log);
  return text.substr(0, text.find('\n'));
}

// What the log says of the scene's episodes.
void add_success(Json& result, const std::string& log, const std::string& pattern, const std::string& scene) {
  try {
    const std::optional<Success> success = find_success(log, pattern, scene);
    if (!success) return;
    result["n_success"] = success->succeeded;
    result["n_episodes"] = success->episodes;
    if (success->episodes > 0) {
      result["success_rate"] = static_cast<double>(success->succeeded) / static_cast<double>(success->episodes);
    }
  } catch (const std::invalid_argument& error) {  // the log makes no sense
    if (!result.contains("error")) result["error"] = error.what();
  }
}

class PairRun {
 public:
  PairRun(EventLoop& events, const ClosedLoopOptions& options, const fs::path& folder)
      : events_(events), options_(options), folder_(folder), port_(free_port(options.port)) {}

  Json run(const std::string& input_fmt, const std::string& output_fmt) {
    Json entry = {{"combo", folder_.filename().string()},
                  {"input_fmt", input_fmt},
                  {"output_fmt", output_fmt},
                  {"success_rate", nullptr},
                  {"by_scene", Json::object()}};
    const fs::path stats = fs::absolute(folder_ / "stats.json");
    ChildProcess server(events_.io(), server_command(input_fmt, output_fmt, stats), ".", server_log());
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
    add_outcome(entry, folder_, stats, last_scene_log_);
    return entry;
  }

 private:
  fs::path server_log() const { return folder_ / "server.log"; }

  std::vector<std::string> server_command(const std::string& input_fmt, const std::string& output_fmt,
                                          const fs::path& stats) const {
    std::vector<std::string> command = {options_.server.string()};
    command.insert(command.end(), options_.server_arguments.begin(), options_.server_arguments.end());
    for (const std::string& argument :
         {std::string("--port"), std::to_string(port_), std::string("--input-fmt"), input_fmt,
          std::string("--output-fmt"), output_fmt, std::string("--stats-output"), stats.string()}) {
      command.push_back(argument);
    }
    return command;
  }

  // Nothing once /healthz answers; else what happened instead.
  std::string wait_until_ready(const ChildProcess& server) {
    const auto deadline = Clock::now() + to_milliseconds(options_.server_timeout);
    while (!is_healthy(port_)) {
      events_.wait(Clock::now() + std::chrono::milliseconds(200), [&] { return server.has_ended(); });
      if (events_.interrupted()) return "interrupted";
      if (server.has_ended() && server.exit_code() == 2) {  // a wrong command line is wrong for every pair
        throw CLI::ValidationError("pi0-server", first_line(server_log()) + options_.hint);
      }
      if (server.has_ended()) {
        return fmt::format("server_start_failed: {}: {}", server.ending(), last_line(server_log()));
      }
      if (Clock::now() > deadline) return "server_start_timeout";
    }
    return server.has_ended() ? "server_start_failed: another program answers on its port" : "";
  }

  Json run_scene(const std::string& scene, const ChildProcess& server) {
    const fs::path videos = fs::absolute(folder_ / "videos" / ("scene" + scene));
    fs::create_directories(videos);
    const fs::path log_file = folder_ / fmt::format("eval_scene{}.log", scene);
    fs::remove(log_file);
    const Videos before = options_.videos_from.empty() ? Videos() : videos_under(options_.videos_from);
    const std::string command = fill_command(options_.eval_command, {{"host", "localhost"},
                                                                     {"port", std::to_string(port_)},
                                                                     {"scene", scene},
                                                                     {"episodes", std::to_string(options_.episodes)},
                                                                     {"output_dir", videos.string()}});
    print(stderr, "closed-loop: {}, scene {}: {}\n", folder_.filename().string(), scene, command);
    Json result = {{"n_success", nullptr}, {"n_episodes", options_.episodes}, {"success_rate", nullptr}};
    const std::string trouble = run_simulator(command, log_file, server);
    if (!trouble.empty()) result["error"] = trouble;
    last_scene_log_ = model::read_file(log_file);
    add_success(result, last_scene_log_, options_.success_regex, scene);
    if (!options_.videos_from.empty()) collect_new_videos(options_.videos_from, before, videos);
    return result;
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
  const std::uint16_t port_;
  std::string last_scene_log_;
};

}  // namespace

Json run_pair(EventLoop& events, const ClosedLoopOptions& options, const fs::path& folder, const std::string& input_fmt,
              const std::string& output_fmt) {
  fs::create_directories(folder / "videos");
  for (const char* name : {"stats.json", "server.log"}) fs::remove(folder / name);  // of a run with errors
  return PairRun(events, options, folder).run(input_fmt, output_fmt);
}

}  // namespace pi0::tools
