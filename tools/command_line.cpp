#include "tools/command_line.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "tools/bus_errors.h"
#include "tools/print.h"

namespace pi0::tools {
namespace {

// --action_dim=4 and --action-dim=4 are one option; values keep their underscores.
std::string with_dashes(std::string argument) {
  if (!argument.starts_with("--")) return argument;
  const auto name_end = argument.begin() + static_cast<std::ptrdiff_t>(
                                               std::min(argument.find('='), argument.size()));
  std::replace(argument.begin(), name_end, '_', '-');
  return argument;
}

// What is opened first would else take the place of a stream that was closed, and get what is printed there.
void open_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) == -1) ::open("/dev/null", O_RDWR);  // the lowest number that is free: this one
  }
}

}  // namespace

int run_program(CLI::App& app, int argc, char** argv) {
  const std::string name = app.get_name();
  open_closed_streams();
  explain_bus_errors(name.c_str());
  std::signal(SIGPIPE, SIG_IGN);  // a reader of our output that has left ends nothing
  std::vector<std::string> arguments;
  for (int i = argc - 1; i > 0; --i) arguments.push_back(with_dashes(argv[i]));  // CLI11: reversed
  try {
    app.parse(arguments);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    print(stderr, "{}: {}\n", app.get_name(), error.what());
    return 1;
  }
}

}  // namespace pi0::tools
