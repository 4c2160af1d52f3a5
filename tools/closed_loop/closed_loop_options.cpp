#include "tools/closed_loop/closed_loop_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>
#include <stdexcept>

#include "model/nearest_name.h"
#include "quant/quant_plan.h"
#include "tools/closed_loop/command_template.h"
#include "tools/closed_loop/presets.h"
#include "tools/closed_loop/served_policy.h"
#include "tools/common/api_key.h"
#include "tools/common/option_checks.h"
#include "tools/common/usable_cpus.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

void add_simulator_options(CLI::App& command, ClosedLoopOptions& options) {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) names.push_back(preset.name);
  CLI::Option* preset =
      choose(command.add_option("--preset", options.preset,
                                "Simulator whose command, scenes and success are known, and whose installation and "
                                "policy are checked before anything starts; described below"),
             names);
  CLI::Option* folder = command
                            .add_option("--simulator-dir", options.simulator_dir,
                                        "The preset's checkout, of openpi ($OPENPI_DIR), PolaRiS or sim-evals")
                            ->check(CLI::ExistingDirectory)
                            ->needs(preset);
  command
      .add_option("--python", options.python, "Interpreter with what the preset's simulator needs; default: python3")
      ->needs(preset);
  CLI::Option* sim_evals = command
                               .add_option_function<fs::path>(
                                   "--sim-evals-dir",
                                   [&options](const fs::path& checkout) {
                                     options.preset = "sim_evals";
                                     options.simulator_dir = checkout;
                                   },
                                   "As --preset sim_evals --simulator-dir")
                               ->check(CLI::ExistingDirectory)
                               ->excludes(preset)
                               ->excludes(folder);
  command
      .add_option("--eval-command", options.eval_command,
                  "Or the simulator's shell command; {host} {port} {scene} {episodes} {output_dir} are replaced by "
                  "their values, {{ is a brace")
      ->excludes(preset)
      ->excludes(sim_evals);
  command.add_option("--eval-dir", options.eval_dir, "Folder in which the command runs; default: the current one")
      ->check(CLI::ExistingDirectory)
      ->excludes(preset)
      ->excludes(sim_evals);
  command
      .add_option("--videos-from", options.videos_from,
                  "Folder into which the simulator writes videos, if it is not {output_dir}; new ones are copied")
      ->excludes(preset)
      ->excludes(sim_evals);
  command.add_option("--episodes", options.episodes, "Episodes per scene; default: 5")->check(positive());
  command.add_option("--scenes", options.scenes, "Names of the scenes; default: the preset's, or 1,2,3")
      ->delimiter(',');
  command.add_option("--port", options.port, "Port of the servers; default: a free one for each")
      ->check(between(0, 65535));
}

void add_success_options(CLI::App& command, SuccessRules& rules) {
  const auto add = [&](const char* name, std::string& rule, const std::string& help) {
    command.add_option(name, rule, help)->group("Success");
  };
  add("--success-regex", rules.regex,
      "Pattern in RE2's syntax, tried line by line on the simulator's output; the last match counts. Its two groups "
      "are the episodes that succeeded and all episodes; a single group is a rate, 0.3 or 30%, of --episodes, or with "
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

// The preset's, unless the command line has its own.
void use_rules(SuccessRules& rules, const SuccessRules& preset) {
  SuccessRules used = rules.has_success() ? rules : preset;
  const bool has_score = !rules.score_regex.empty() || !rules.score_csv.empty();
  used.score_regex = has_score ? rules.score_regex : preset.score_regex;
  used.score_csv = has_score ? rules.score_csv : preset.score_csv;
  rules = std::move(used);
}

// Fills in the preset's command, scenes and so on, and checks that its simulator can run. What the user gave stays.
void use_preset(ClosedLoopOptions& options, const CLI::App& command) {
  const Preset& preset = preset_named(options.preset);
  const fs::path folder = simulator_folder(preset, options.simulator_dir);
  options.eval_command = simulator_command(preset, folder, options.python);
  if (preset.runs_in_folder) options.eval_dir = folder;
  if (!preset.videos.empty()) options.videos_from = folder / preset.videos;
  if (preset.port != 0) {
    if (command.count("--port") > 0 && options.port != preset.port) {
      throw std::invalid_argument(fmt::format("--preset {}: found --port {}, but its client connects to port {}",
                                              preset.name, options.port, preset.port));
    }
    options.port = preset.port;
  }
  if (command.count("--scenes") == 0) options.scenes = preset.scenes;
  check_scenes(preset, options.scenes);
  use_rules(options.success, preset.success);
  if (command.count("--python") > 0 && preset.imports.empty()) {
    throw std::invalid_argument(fmt::format("--preset {}: runs {}, which has its own Python; found --python {}",
                                            preset.name, preset.program, options.python));
  }
  check_installation(preset, options.python);
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

// Before the preset's simulator is looked at: a policy is quick to check.
void check_server(const ClosedLoopOptions& options) {
  const ServedPolicy served = served_policy(options.server_arguments);
  if (options.preset.empty()) return;
  const Preset& preset = preset_named(options.preset);
  if (!served.config) {
    throw std::invalid_argument(
        fmt::format("--preset {}: no policy: give --config or --config-file; policies for this simulator: {}",
                    preset.name, fmt::join(preset.policies, ", ")));
  }
  check_policy(preset, *served.config, served.is_openpis, served.has_default_prompt);
}

bool is_given(const std::vector<std::string>& words, const std::string& name) {
  return std::ranges::any_of(words,
                             [&](const std::string& word) { return word == name || word.starts_with(name + "="); });
}

// What makes the difference between settings is not the server's own.
void refuse_formats(const std::vector<std::string>& server_arguments) {
  for (const char* name :
       {"--input-fmt", "--weight-fmt", "--output-fmt", "--accumulator", "--functional-model", "--stats-output"}) {
    if (!is_given(server_arguments, name)) continue;
    throw std::invalid_argument(
        fmt::format("{} is set for each server; give the settings as --pairs, --input-fmts, --output-fmts, "
                    "--accumulators and so on, or --rules",
                    name));
  }
}

// The value of an option that the server gets; nothing without it.
std::optional<std::string> value_of(const std::vector<std::string>& words, const std::string& name) {
  for (auto word = words.begin(); word != words.end(); ++word) {
    if (word->starts_with(name + "=")) return word->substr(name.size() + 1);
    if (*word == name && word + 1 != words.end()) return *(word + 1);
  }
  return std::nullopt;
}

// How this program asks the server for its counts.
void settle_access(ClosedLoopOptions& options) {
  if (is_given(options.server_arguments, "--tls-cert")) {
    throw std::invalid_argument("--tls-cert: the servers of a closed loop listen on this machine, without TLS");
  }
  if (const auto file = value_of(options.server_arguments, "--api-key-file")) {
    options.api_key = read_api_key(*file);
  }
}

void check_scene_names(const std::vector<std::string>& scenes) {
  constexpr std::size_t longest = 80;  // as a part of file names, with every byte escaped
  for (auto scene = scenes.begin(); scene != scenes.end(); ++scene) {
    if (scene->empty()) throw std::invalid_argument("--scenes: found a scene without a name");
    if (scene->size() > longest) {
      throw std::invalid_argument(
          fmt::format("scene '{}...': its name is longer than {} bytes", scene->substr(0, 20), longest));
    }
    if (std::find(scenes.begin(), scene, *scene) != scene) {
      throw std::invalid_argument(fmt::format("scene '{}' is given twice", *scene));
    }
  }
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
  if (options.preset.empty() && command.count("--eval-command") == 0) {
    throw CLI::ValidationError("closed-loop", "--preset or --eval-command is required" + options.hint);
  }
  options.server_arguments = command.remaining();
  refuse_formats(options.server_arguments);
  if (options.server.empty()) {
    options.server = fs::canonical("/proc/self/exe").parent_path() / "pi0-server";
    check_server(options);  // another program may know others
    settle_access(options);
    // Every setting sees the same noise, and servers at the same time share the cores.
    if (!is_given(options.server_arguments, "--seed")) {
      options.server_arguments.insert(options.server_arguments.end(), {"--seed", "0"});
    }
    if (options.jobs > 1 && !is_given(options.server_arguments, "--threads")) {
      options.threads_each = std::max<std::size_t>(1, static_cast<std::size_t>(usable_cpus()) / options.jobs);
    }
    for (const fs::path& rules : options.rules) quant::read_rules(rules);  // refused here, before a server starts
  } else {
    options.counts_requests = false;
  }
  if (!options.preset.empty()) use_preset(options, command);
  fill_command(options.eval_command, {{"host", ""}, {"port", ""}, {"scene", ""}, {"episodes", ""}, {"output_dir", ""}});
  check_scene_names(options.scenes);
  options.has_rules = !to_json(options.success).empty();
  if (!options.success.has_success()) options.success.regex = original_success_regex;
  check_rules(options.success);
  const auto given = [&](const char* name) { return command.count(name) > 0; };
  options.has_formats = given("--input-fmts") || given("--weight-fmts") || given("--output-fmts") || given("--pairs") ||
                        given("--presets") || (options.rules.empty() && !options.unquantized);
  for (const char* name :
       {"--kv-cache-fmt", "--vector-fmt", "--rotate", "--smooth", "--clip", "--accumulators", "--output-noise"}) {
    if (options.has_formats || !given(name)) continue;
    throw std::invalid_argument(std::string(name) + ": there are no formats that it goes with; rules have their own");
  }
  if (options.jobs > 1 && !options.videos_from.empty()) {
    throw std::invalid_argument(
        fmt::format("--jobs {}: simulators at the same time cannot share the videos of {}; without --jobs, or with a "
                    "command that writes to {{output_dir}}",
                    options.jobs, options.videos_from.string()));
  }
  if (options.jobs > 1 && options.port != 0) {
    throw std::invalid_argument(
        fmt::format("--jobs {}: servers at the same time cannot share port {}", options.jobs, options.port));
  }
}

}  // namespace pi0::tools
