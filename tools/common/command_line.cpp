#include "tools/common/command_line.h"

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/nearest_name.h"
#include "tools/common/bus_errors.h"
#include "tools/common/failure.h"
#include "tools/common/print.h"
#include "tools/common/usable_cpus.h"

namespace pi0::tools {
namespace {

// --action_dim=4 and --action-dim=4 are one option; values keep their underscores.
std::string with_dashes(std::string argument) {
  if (!argument.starts_with("--")) return argument;
  const auto name_end = argument.begin() + static_cast<std::ptrdiff_t>(std::min(argument.find('='), argument.size()));
  std::replace(argument.begin(), name_end, '_', '-');
  return argument;
}

// The subcommand that the words name, or the program itself.
const CLI::App& named_by(const CLI::App& app, const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    for (const CLI::App* command : app.get_subcommands({})) {
      if (command->get_name() == word) return *command;
    }
  }
  return app;
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
  }
  return names;
}

// The error for the first unknown word, with the known name nearest to it; empty if all are known. CLI11's own error
// often names the word beside it.
std::string unknown_word(const CLI::App& app, const std::vector<std::string>& words) {
  const CLI::App& command = named_by(app, words);
  const auto is_option = [](const std::string& word) {  // not a negative number
    return word.size() > 1 && word[0] == '-' && word != "--" &&
           std::isdigit(static_cast<unsigned char>(word[1])) == 0 && word[1] != '.';
  };
  if (&command == &app && !app.get_subcommands({}).empty()) {
    std::vector<std::string> commands;
    for (const CLI::App* known : app.get_subcommands({})) commands.push_back(known->get_name());
    if (!words.empty() && !is_option(words.front())) {
      return fmt::format("unknown subcommand '{}'{}", words.front(), model::did_you_mean(words.front(), commands));
    }
  }
  if (command.get_allow_extras()) return "";
  const std::vector<std::string> known = option_names(command);
  for (const std::string& word : words) {
    const std::string name = word.substr(0, word.find('='));
    if (!is_option(word) || std::ranges::find(known, name) != known.end()) continue;
    return fmt::format("unknown option '{}'{}", name, model::did_you_mean(name, known));
  }
  return "";
}

std::string without_types(std::string text) {
  for (const char* type : {"TEXT:", "UINT:", "INT:", "FLOAT:"}) {
    const std::size_t at = text.find(type);
    if (at != std::string::npos) text.erase(at, std::string_view(type).size());
  }
  return text;
}

// Shows what a value must be, not its C++ type: FILE, not TEXT:FILE.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option_opts(const CLI::Option* option) const override {
    return without_types(Formatter::make_option_opts(option));
  }
};

// Otherwise the first file that is opened takes the number of a closed stream, and output goes into that file.
void open_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) == -1) ::open("/dev/null", O_RDWR);  // takes the lowest free number: this one
  }
}

}  // namespace

int run_program(CLI::App& app, int argc, char** argv) {
  const std::string name = app.get_name();
  open_closed_streams();
  explain_bus_errors(name.c_str());
  std::signal(SIGPIPE, SIG_IGN);  // the program continues without a reader of its output
  // LibTorch takes as many threads as there are cores that it may run on, whatever the quota.
  at::set_num_threads(std::min(at::get_num_threads(), usable_cpus()));
  app.formatter(std::make_shared<HelpFormatter>());
  for (CLI::App* command : app.get_subcommands({})) command->formatter(app.get_formatter());
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) words.push_back(with_dashes(argv[i]));
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));
    flush_output();
    return 0;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    const std::string unknown = unknown_word(app, words);
    print(stderr, "{}\nRun with --help for more information.\n",
          unknown.empty() ? without_types(error.what()) : unknown);
    return 2;
  } catch (const std::exception& error) {
    print(stderr, "{}: {}\n", app.get_name(), failure_text(error));
    return 1;
  }
}

void end_program(int exit_code) {
#ifdef __SANITIZE_ADDRESS__
  std::exit(exit_code);  // looks for leaks
#else
  std::fflush(nullptr);
  std::_Exit(exit_code);
#endif
}

}  // namespace pi0::tools
