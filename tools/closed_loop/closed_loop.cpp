// pi0 closed-loop: a server per pair of formats, and a simulator's episodes against each. Layout of the
// results and their keys: pi0-quant run_benchmark.py.
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cctype>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/json_fields.h"
#include "model/nearest_name.h"
#include "model/text_file.h"
#include "protocol/files.h"
#include "server/end_signals.h"
#include "tools/closed_loop/bounded_log.h"
#include "tools/closed_loop/child_process.h"
#include "tools/closed_loop/health_check.h"
#include "tools/closed_loop/simulator.h"
#include "tools/common/commands.h"
#include "tools/common/option_checks.h"
#include "tools/common/print.h"
#include "tools/common/quant_options.h"
#include "tools/common/results.h"
#include "tools/common/stopwatch.h"

namespace pi0::tools {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using std::chrono::seconds;

struct ClosedLoopOptions {
  FormatLists formats;
  fs::path sim_evals;
  std::string eval_command;
  fs::path eval_dir = ".";
  fs::path videos_from;
  std::string success_regex = R"([Ss]cene\s+{scene}[:\s]+(\d+)/(\d+))";
  std::int64_t episodes = 5;
  std::vector<std::string> scenes = {"1", "2", "3"};
  std::uint16_t port = 0;                                                // 0: a free one per server
  double server_timeout = 300, eval_timeout = 3600, stop_timeout = 120;  // seconds
  fs::path output = "results";
  bool resume = false;
  fs::path server;
  std::vector<std::string> server_arguments;
  std::string hint;  // what one of these was perhaps meant for here
};

// "; did you mean '--eval-command'?" for an option that goes to pi0-server but is near one of ours.
std::string own_option_meant(const CLI::App& command) {
  std::vector<std::string> own;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) own.push_back("--" + name);
  }
  for (const std::string& word : command.remaining()) {
    const std::string name = word.substr(0, word.find('='));
    const std::string hint = name.starts_with("--") ? model::did_you_mean(name, own) : "";
    if (!hint.empty()) return fmt::format("; '{}' goes to pi0-server{}", name, hint);
  }
  return "";
}

// Of a simulator's output, on disk and in memory; the middle is left out.
constexpr std::size_t max_log_bytes = std::size_t{64} << 20;

void tell(const std::string& line) { print(stderr, "closed-loop: {}\n", line); }

// sim-evals has no options for host, port or folder; its client connects to localhost:8000.
void use_sim_evals(ClosedLoopOptions& options) {
  if (!fs::exists(options.sim_evals / "run_eval.py")) {
    throw std::invalid_argument(options.sim_evals.string() +
                                ": holds no run_eval.py; --sim-evals-dir is a checkout of sim-evals");
  }
  options.eval_command = "uv run python run_eval.py --episodes {episodes} --scene {scene} --headless";
  options.eval_dir = options.sim_evals;
  options.videos_from = options.sim_evals / "runs";
  options.port = 8000;
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

bool is_timestamp(const std::string& name) {
  constexpr std::string_view shape = "0000-00-00_00-00-00";
  return name.size() == shape.size() && std::ranges::equal(name, shape, [](char found, char wanted) {
           return wanted == '0' ? std::isdigit(static_cast<unsigned char>(found)) != 0 : found == wanted;
         });
}

class ClosedLoop {
 public:
  explicit ClosedLoop(ClosedLoopOptions options) : options_(std::move(options)), signals_(io_) {
    for (const int signal : server::end_signals()) signals_.add(signal);
    signals_.async_wait([this](const boost::system::error_code& error, int signal) {
      if (error) return;
      interrupted_ = true;
      signals_.clear();  // a second one ends the program
      tell(server::name_of_signal(signal) + ": stopping");
    });
  }

  void run() {
    const fs::path root = result_folder();
    tell(fmt::format("results in {}", root.string()));
    std::vector<Json> entries;
    const std::size_t count = options_.formats.input_fmts.size() * options_.formats.output_fmts.size();
    std::size_t failed = 0;
    Stopwatch clock;
    double spent = 0;
    std::size_t measured = 0;
    for (const std::string& input : options_.formats.input_fmts) {
      for (const std::string& output : options_.formats.output_fmts) {
        const std::string name = pair_folder(input, output);
        std::optional<Json> entry = earlier_entry(root / name);
        const bool is_earlier = entry.has_value();
        if (!is_earlier) {
          clock.lap();
          try {
            entry = run_pair(root / name, input, output);
          } catch (const CLI::ValidationError&) {
            if (entries.empty() && !options_.resume) fs::remove_all(root);  // it is new and empty
            throw;
          }
          protocol::write_whole(root / name / "result.json", text_of(*entry));
          spent += clock.lap();
          ++measured;
        }
        if (has_error(*entry)) ++failed;
        entries.push_back(std::move(*entry));
        write_summary(root, entries);
        if (interrupted_) throw std::runtime_error("interrupted; --resume continues");
        const double left =
            measured == 0 ? 0 : spent / static_cast<double>(measured) * static_cast<double>(count - entries.size());
        tell(fmt::format("{} of {}, {}: {}; {:.0f} s left", entries.size(), count, name,
                         is_earlier ? "done already" : outcome(entries.back()), left));
      }
    }
    print(entries);
    if (failed > 0) {
      throw std::runtime_error(fmt::format("{} of {} pairs had errors, which {} names; --resume runs these again",
                                           failed, count, (root / "summary.json").string()));
    }
  }

 private:
  // --- results

  Json settings() const {
    return {{"server_arguments", options_.server_arguments},
            {"eval_command", options_.eval_command},
            {"scenes", options_.scenes},
            {"episodes", options_.episodes},
            {"success_regex", options_.success_regex}};
  }

  // A new folder of this moment, or with --resume the newest.
  fs::path result_folder() const {
    fs::create_directories(options_.output);
    if (options_.resume) {
      fs::path newest;
      for (const fs::directory_entry& entry : fs::directory_iterator(options_.output)) {
        if (is_timestamp(entry.path().filename().string())) newest = std::max(newest, entry.path());
      }
      if (newest.empty()) {
        throw std::runtime_error(options_.output.string() + ": has no earlier results to --resume");
      }
      const fs::path file = newest / "settings.json";
      const Json earlier = model::read_json(file);
      model::JsonFields fields(earlier, file.string());
      const Json wanted = settings();
      for (const auto& [key, value] : wanted.items()) fields.value(key);
      fields.finish();
      check_same_settings(newest, earlier, "this closed loop", wanted);
      return newest;
    }
    const fs::path root = options_.output / fmt::format("{:%Y-%m-%d_%H-%M-%S}", fmt::localtime(std::time(nullptr)));
    if (!fs::create_directory(root)) throw std::runtime_error(root.string() + ": exists already");
    protocol::write_whole(root / "settings.json", text_of(settings()));
    return root;
  }

  // A pair's result of an earlier run, unless it had errors.
  static std::optional<Json> earlier_entry(const fs::path& folder) {
    const fs::path file = folder / "result.json";
    if (!fs::exists(file)) return std::nullopt;
    Json entry = read_pair(file);
    if (entry["combo"] != folder.filename().string()) {
      throw std::runtime_error(fmt::format("{}: is of the pair {}, expected {}", file.string(),
                                           model::shown(entry["combo"]), folder.filename().string()));
    }
    if (has_error(entry)) return std::nullopt;
    return entry;
  }

  static bool has_error(const Json& entry) {
    return entry.contains("error") ||
           std::ranges::any_of(entry["by_scene"], [](const Json& scene) { return scene.contains("error"); });
  }

  static std::string outcome(const Json& entry) {
    std::string text = entry["success_rate"].is_null()
                           ? "no success rate"
                           : fmt::format("success {:.2f}", entry["success_rate"].get<double>());
    if (entry.contains("error")) text += ", " + entry["error"].get<std::string>();
    for (const auto& [scene, result] : entry["by_scene"].items()) {
      if (result.contains("error")) text += fmt::format(", scene {}: {}", scene, result["error"].get<std::string>());
    }
    return text;
  }

  static void write_summary(const fs::path& root, const std::vector<Json>& entries) {
    std::vector<Json> rows;
    for (const Json& entry : entries) {
      Json row = entry;
      row["components"] = entry["component_rmse"];
      for (const auto& [scene, result] : entry["by_scene"].items()) {
        row["success_scene" + scene] = result["success_rate"];
      }
      rows.push_back(std::move(row));
    }
    protocol::write_whole(root / "summary.csv", table_of(rows));
    protocol::write_whole(root / "summary.json", text_of(entries));
  }

  static void print(const std::vector<Json>& entries) {
    const auto figure = [](const Json& value, const char* format) {
      return value.is_number() ? fmt::format(fmt::runtime(format), value.get<double>()) : std::string("-");
    };
    tools::print("{:13}{:13}{:>8}{:>13}{:>13}{:>15}{:>13}\n", "input", "output", "success", "vision", "language",
                 "action_expert", "action_head");
    for (const Json& entry : entries) {
      tools::print("{:13}{:13}{:>8}", entry["input_fmt"].get<std::string>(), entry["output_fmt"].get<std::string>(),
                   figure(entry["success_rate"], "{:.2f}"));
      const Json& rmse = entry["component_rmse"];
      tools::print("{:>13}{:>13}{:>15}{:>13}\n", figure(rmse.value("vision", Json()), "{:.3e}"),
                   figure(rmse.value("language", Json()), "{:.3e}"),
                   figure(rmse.value("action_expert", Json()), "{:.3e}"),
                   figure(rmse.value("action_head", Json()), "{:.3e}"));
    }
  }

  // --- one pair

  Json run_pair(const fs::path& folder, const std::string& input, const std::string& output) {
    fs::create_directories(folder / "videos");
    for (const char* name : {"stats.json", "server.log"}) fs::remove(folder / name);  // of a run with errors
    Json entry = {{"combo", folder.filename().string()},
                  {"input_fmt", input},
                  {"output_fmt", output},
                  {"success_rate", nullptr},
                  {"by_scene", Json::object()}};
    std::string log_text;
    const std::uint16_t port = free_port(options_.port);
    std::vector<std::string> command = {options_.server.string()};
    command.insert(command.end(), options_.server_arguments.begin(), options_.server_arguments.end());
    const fs::path stats = fs::absolute(folder / "stats.json");
    for (const std::string& argument :
         {std::string("--port"), std::to_string(port), std::string("--input-fmt"), input, std::string("--output-fmt"),
          output, std::string("--stats-output"), stats.string()}) {
      command.push_back(argument);
    }
    ChildProcess server(io_, command, ".", folder / "server.log");
    const std::string trouble = wait_until_ready(server, port, folder / "server.log");
    if (!trouble.empty()) entry["error"] = trouble;
    for (const std::string& scene : options_.scenes) {
      if (entry.contains("error") || interrupted_) break;
      entry["by_scene"][scene] = run_scene(folder, scene, port, server, log_text);
      if (server.has_ended()) entry["error"] = "server_crashed: " + server.ending();
    }
    if (!server.stop(to_milliseconds(options_.stop_timeout)) && !entry.contains("error")) {
      entry["error"] = fmt::format("server_killed: still ran {} s after SIGTERM", options_.stop_timeout);
    }
    if (interrupted_) entry["error"] = "interrupted";
    add_outcome(entry, folder, stats, log_text);
    return entry;
  }

  static std::chrono::milliseconds to_milliseconds(double length) {
    return std::chrono::milliseconds(static_cast<std::int64_t>(length * 1000));
  }

  // Nothing once /healthz answers; else what happened instead.
  std::string wait_until_ready(ChildProcess& server, std::uint16_t port, const fs::path& log) {
    const auto deadline = std::chrono::steady_clock::now() + to_milliseconds(options_.server_timeout);
    while (!is_healthy(port)) {
      wait(std::chrono::steady_clock::now() + std::chrono::milliseconds(200), [&] { return server.has_ended(); });
      if (interrupted_) return "interrupted";
      if (server.has_ended() && server.exit_code() == 2) {  // a wrong command line is wrong for every pair
        throw CLI::ValidationError("pi0-server", first_line(log) + options_.hint);
      }
      if (server.has_ended()) {
        return fmt::format("server_start_failed: {}: {}", server.ending(), last_line(log));
      }
      if (std::chrono::steady_clock::now() > deadline) return "server_start_timeout";
    }
    return server.has_ended() ? "server_start_failed: another program answers on its port" : "";
  }

  Json run_scene(const fs::path& folder, const std::string& scene, std::uint16_t port, const ChildProcess& server,
                 std::string& log_text) {
    const fs::path videos = fs::absolute(folder / "videos" / ("scene" + scene));
    fs::create_directories(videos);
    const fs::path log_file = folder / fmt::format("eval_scene{}.log", scene);
    fs::remove(log_file);
    const Videos before = options_.videos_from.empty() ? Videos() : videos_under(options_.videos_from);
    const std::string command = fill_command(options_.eval_command, {{"host", "localhost"},
                                                                     {"port", std::to_string(port)},
                                                                     {"scene", scene},
                                                                     {"episodes", std::to_string(options_.episodes)},
                                                                     {"output_dir", videos.string()}});
    tell(fmt::format("{}, scene {}: {}", folder.filename().string(), scene, command));
    Json result = {{"n_success", nullptr}, {"n_episodes", options_.episodes}, {"success_rate", nullptr}};
    BoundedLog log(io_, log_file, max_log_bytes);
    ChildProcess simulator(io_, {"/bin/sh", "-c", command}, options_.eval_dir, log.descriptor());
    wait(std::chrono::steady_clock::now() + to_milliseconds(options_.eval_timeout),
         [&] { return simulator.has_ended() || server.has_ended(); });
    if (interrupted_) {
      result["error"] = "interrupted";
    } else if (server.has_ended() && !simulator.has_ended()) {
      result["error"] = "the server ended under it";
    } else if (!simulator.has_ended()) {
      result["error"] = fmt::format("timeout after {} s", options_.eval_timeout);
    } else if (!simulator.has_succeeded()) {
      result["error"] = simulator.ending();
    }
    simulator.stop(seconds(10));
    log.finish();
    log_text = model::read_file(log_file);
    try {
      if (const auto success = find_success(log_text, options_.success_regex, scene)) {
        result["n_success"] = success->succeeded;
        result["n_episodes"] = success->episodes;
        if (success->episodes > 0) {
          result["success_rate"] = static_cast<double>(success->succeeded) / static_cast<double>(success->episodes);
        }
      }
    } catch (const std::invalid_argument& error) {  // the log makes no sense
      if (!result.contains("error")) result["error"] = error.what();
    }
    if (!options_.videos_from.empty()) collect_new_videos(options_.videos_from, before, videos);
    return result;
  }

  // The means over scenes, the files that are there, and the pair's eval_results.json.
  static void add_outcome(Json& entry, const fs::path& folder, const fs::path& stats, const std::string& log_text) {
    double sum = 0;
    int count = 0;
    for (const Json& scene : entry["by_scene"]) {
      if (!scene["success_rate"].is_number()) continue;
      sum += scene["success_rate"].get<double>();
      ++count;
    }
    if (count > 0) entry["success_rate"] = sum / count;
    entry["video_dir"] = (folder / "videos").string();
    entry["video_files"] = Json::array();
    for (const auto& [video, written] : videos_under(folder / "videos")) entry["video_files"].push_back(video.string());
    constexpr std::size_t kept = 4000;  // characters, as pi0-quant
    protocol::write_whole(folder / "eval_results.json", text_of({{"success_rate", entry["success_rate"]},
                                                                 {"by_scene", entry["by_scene"]},
                                                                 {"eval_log", log_text.substr(0, kept)},
                                                                 {"video_dir", entry["video_dir"]},
                                                                 {"video_files", entry["video_files"]}}));
    entry["component_rmse"] = Json::object();
    entry["rmse_stats_path"] = stats.string();
    if (!fs::exists(stats)) {
      if (!entry.contains("error")) entry["error"] = "the server left no statistics";
      return;
    }
    try {
      const Json statistics = model::read_json(stats);
      model::JsonFields fields(statistics, stats.string());
      for (model::JsonFields& row : fields.rows("components")) {
        entry["component_rmse"][row.text("component")] = row.number_or_null("mean_rmse");
      }
    } catch (const model::JsonFileError& error) {  // of another program, named by --server: costs only this pair
      if (!entry.contains("error")) entry["error"] = error.what();
    }
  }

  // Handles signals and ends of processes until `done`, the deadline or an interruption.
  void wait(std::chrono::steady_clock::time_point deadline, const std::function<bool()>& done) {
    while (!done() && !interrupted_ && std::chrono::steady_clock::now() < deadline) {
      if (io_.stopped()) io_.restart();
      io_.run_one_until(std::min(deadline, std::chrono::steady_clock::now() + seconds(1)));
    }
  }

  const ClosedLoopOptions options_;
  asio::io_context io_{1};
  asio::signal_set signals_;
  bool interrupted_ = false;
};

}  // namespace

void add_closed_loop(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "closed-loop", "Serve pairs of formats one after the other and run a simulator's episodes against each");
  command->allow_extras();
  command->footer(
      "All other options go to pi0-server, which says what they are: --config, --checkpoint-dir, ...\n\n"
      "Example:\n"
      "  pi0 closed-loop --config pi05_droid --checkpoint-dir DIR --input-fmts float8_e4m3,bfloat16 --output-fmts "
      "float16 \\\n"
      "    --eval-command 'python eval.py --port {port} --scene {scene} --out {output_dir}'");
  const auto options = std::make_shared<ClosedLoopOptions>();
  add_format_lists(*command, options->formats, "Options");
  CLI::Option* preset =
      command
          ->add_option("--sim-evals-dir", options->sim_evals,
                       "Checkout of sim-evals: runs its run_eval.py there with uv, serves on port 8000, where its "
                       "client looks, and collects the videos of its runs/")
          ->check(CLI::ExistingDirectory);
  CLI::Option* eval =
      command
          ->add_option("--eval-command", options->eval_command,
                       "Or the simulator's shell command, with {host} {port} {scene} {episodes} {output_dir} filled in")
          ->excludes(preset);
  command->add_option("--eval-dir", options->eval_dir, "Folder it runs in; default: this one")
      ->check(CLI::ExistingDirectory)
      ->excludes(preset);
  command
      ->add_option(
          "--videos-from", options->videos_from,
          "Folder where it leaves videos, new ones of which are copied; those in {output_dir} are there already")
      ->excludes(preset);
  command->add_option("--success-regex", options->success_regex,
                      "Where its output says how many episodes succeeded, and of how many, in RE2's syntax; default: "
                      "pi0-quant's, " +
                          options->success_regex);
  command->add_option("--episodes", options->episodes, "Episodes per scene; default: 5")->check(positive());
  command->add_option("--scenes", options->scenes, "Default: 1,2,3")->delimiter(',');
  command->add_option("--port", options->port, "Of the servers; default: a free one each")
      ->check(between(0, 65535))
      ->excludes(preset);
  command
      ->add_option("--server-timeout", options->server_timeout, "Seconds until a server answers /healthz; default: 300")
      ->check(positive());
  command->add_option("--eval-timeout", options->eval_timeout, "Seconds per scene; default: 3600")->check(positive());
  command
      ->add_option("--stop-timeout", options->stop_timeout,
                   "Seconds for a server to finish and write its statistics; default: 120")
      ->check(positive());
  command->add_option("--output,--output-dir", options->output, "Folder that gets a folder per run; default: results");
  command->add_flag("--resume", options->resume, "Continue the newest run there; pairs with errors run again");
  command->add_option("--server", options->server, "The program pi0-server; default: the one beside this")
      ->check(CLI::ExistingFile);
  command->callback([options, command, preset, eval] {
    options->hint = own_option_meant(*command);
    if (preset->count() + eval->count() == 0) {
      throw CLI::ValidationError("closed-loop", "--eval-command or --sim-evals-dir is required" + options->hint);
    }
    if (preset->count() > 0) use_sim_evals(*options);
    if (options->server.empty()) options->server = fs::canonical("/proc/self/exe").parent_path() / "pi0-server";
    options->server_arguments = command->remaining();
    // Errors in them should show before the first episode.
    fill_command(options->eval_command,
                 {{"host", ""}, {"port", ""}, {"scene", ""}, {"episodes", ""}, {"output_dir", ""}});
    find_success("", options->success_regex, "");
    ClosedLoop(*options).run();
  });
}

}  // namespace pi0::tools
