#include "tools/closed_loop/closed_loop_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <thread>

#include "model/checkpoint_folder.h"
#include "model/nearest_name.h"
#include "model/policy/policy_config.h"
#include "tools/closed_loop/command_template.h"
#include "tools/common/model_options.h"
#include "tools/common/option_checks.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

void add_simulator_options(CLI::App& command, ClosedLoopOptions& options) {
  CLI::Option* preset =
      command
          .add_option("--sim-evals-dir", options.sim_evals,
                      "Checkout of sim-evals: runs its run_eval.py there with uv, serves on port 8000, where its "
                      "client looks, and collects the videos of its runs/")
          ->check(CLI::ExistingDirectory);
  command
      .add_option("--eval-command", options.eval_command,
                  "Or the simulator's shell command; {host} {port} {scene} {episodes} {output_dir} are replaced by "
                  "their values, {{ is a brace")
      ->excludes(preset);
  command.add_option("--eval-dir", options.eval_dir, "Folder in which the command runs; default: the current one")
      ->check(CLI::ExistingDirectory)
      ->excludes(preset);
  command
      .add_option("--videos-from", options.videos_from,
                  "Folder into which the simulator writes videos, if it is not {output_dir}; new ones are copied")
      ->excludes(preset);
  command.add_option("--episodes", options.episodes, "Episodes per scene; default: 5")->check(positive());
  command.add_option("--scenes", options.scenes, "Names of the scenes; default: 1,2,3")->delimiter(',');
  command.add_option("--port", options.port, "Port of the servers; default: a free one for each")
      ->check(between(0, 65535))
      ->excludes(preset);
}

void add_success_options(CLI::App& command, SuccessRules& rules) {
  const auto add = [&](const char* name, std::string& rule, const std::string& help) {
    command.add_option(name, rule, help)->group("Success");
  };
  add("--success-regex", rules.regex,
      "Pattern in RE2's syntax, tried line by line on the simulator's output; the last match counts. Its two groups "
      "are "
      "the episodes that succeeded and all episodes; a single group is a rate, 0.3 or 30%, of --episodes, or with "
      "--episodes-regex those that succeeded. Default: pi0-quant's, " +
          std::string(original_success_regex));
  add("--episodes-regex", rules.episodes_regex,
      "Whose group is the number of all episodes, where it stands on a line of its own");
  add("--episode-regex", rules.episode_regex,
      "Instead: each line that matches is an episode; the group is true or false, success or failure, 1 or 0");
  add("--success-csv", rules.csv, "Instead: FILE:COLUMN, a row per episode; FILE lies in {output_dir}");
  add("--success-json", rules.json,
      "Instead: FILE:KEY, a rate or a list of episodes; KEY may be a path, episodes.success");
  add("--success-videos", rules.videos, "Instead: each video is an episode; those with a matching name succeeded");
  add("--score-regex", rules.score_regex,
      "A graded score beside success: each line that matches is an episode; the group is a number");
  add("--score-csv", rules.score_csv, "Or FILE:COLUMN with a score in each row");
}

void add_timeouts(CLI::App& command, ClosedLoopOptions& options) {
  command
      .add_option("--server-timeout", options.server_timeout, "Seconds until a server answers /healthz; default: 300")
      ->check(positive());
  command.add_option("--eval-timeout", options.eval_timeout, "Seconds per scene; default: 3600")->check(positive());
  command
      .add_option("--stop-timeout", options.stop_timeout,
                  "Seconds for a server to finish and write its statistics; default: 120")
      ->check(positive());
}

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

// An unknown policy, or a place without a checkpoint, would end the server of every pair.
void check_server(const std::vector<std::string>& server_arguments) {
  CLI::App server;
  server.allow_extras();
  std::string config;
  server.add_option("--config,--policy.config", config)->take_last();
  std::string place;
  server.add_option("--checkpoint-dir,--policy.dir", place)->transform(or_cached())->take_last();
  bool random_weights = false;
  server.add_flag("--random-weights", random_weights);
  server.parse(std::vector<std::string>(server_arguments.rbegin(), server_arguments.rend()));
  if (!config.empty()) policy::policy_config(config);
  if (!place.empty() && !random_weights) model::find_checkpoint(place);
}

// Every setting sees the same noise, and servers at the same time share the cores.
void add_defaults(ClosedLoopOptions& options) {
  const auto add = [&](const std::string& name, std::size_t value) {
    const auto is_given = [&](const std::string& word) { return word == name || word.starts_with(name + "="); };
    if (std::ranges::any_of(options.server_arguments, is_given)) return;
    options.server_arguments.push_back(name);
    options.server_arguments.push_back(std::to_string(value));
  };
  add("--seed", 0);
  if (options.jobs > 1) add("--threads", std::max<std::size_t>(1, std::thread::hardware_concurrency() / options.jobs));
}

}  // namespace

void add_closed_loop_options(CLI::App& command, ClosedLoopOptions& options) {
  command.allow_extras();
  command.add_flag("--unquantized", options.unquantized,
                   "Serve the policy as it is, too; the others are compared with it, episode by episode");
  add_format_lists(command, options.formats, "Options");
  command
      .add_option("--rules", options.rules,
                  "JSON files of formats per layer, each served once; without --pairs or lists of formats, only these")
      ->check(CLI::ExistingFile)
      ->delimiter(',');
  add_simulator_options(command, options);
  add_success_options(command, options.success);
  add_timeouts(command, options);
  command.add_option("--output,--output-dir", options.output,
                     "Folder in which every run makes a folder; default: results");
  command.add_option("--jobs", options.jobs, "Servers, each with its simulator, at the same time; default: 1")
      ->check(between(1, 64));
  command.add_flag(
      "--resume", options.resume,
      "Continue the newest run there: what had errors runs again, and how the episodes went is read again, "
      "by other options of success if there are any");
  command.add_option("--server", options.server, "The program pi0-server; default: the one beside this")
      ->check(CLI::ExistingFile);
}

void settle(ClosedLoopOptions& options, const CLI::App& command) {
  options.hint = own_option_meant(command);
  const bool is_preset = command.count("--sim-evals-dir") > 0;
  if (!is_preset && command.count("--eval-command") == 0) {
    throw CLI::ValidationError("closed-loop", "--eval-command or --sim-evals-dir is required" + options.hint);
  }
  if (is_preset) use_sim_evals(options);
  options.server_arguments = command.remaining();
  if (options.server.empty()) {
    options.server = fs::canonical("/proc/self/exe").parent_path() / "pi0-server";
    check_server(options.server_arguments);  // another program may know others
    add_defaults(options);
  }
  fill_command(options.eval_command, {{"host", ""}, {"port", ""}, {"scene", ""}, {"episodes", ""}, {"output_dir", ""}});
  if (!options.success.has_success()) options.success.regex = original_success_regex;
  check_rules(options.success);
  const auto given = [&](const char* name) { return command.count(name) > 0; };
  options.has_pairs = given("--input-fmts") || given("--output-fmts") || given("--pairs") ||
                      (options.rules.empty() && !options.unquantized);
  if (options.jobs > 1 && options.port != 0) {
    throw std::invalid_argument(
        fmt::format("--jobs {}: servers at the same time cannot share port {}", options.jobs, options.port));
  }
}

}  // namespace pi0::tools
