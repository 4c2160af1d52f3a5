#include "tools/command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "tools/bus_errors.h"

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

}  // namespace

int run_program(CLI::App& app, int argc, char** argv) {
  const std::string name = app.get_name();
  explain_bus_errors(name.c_str());
  std::vector<std::string> arguments;
  for (int i = argc - 1; i > 0; --i) arguments.push_back(with_dashes(argv[i]));  // CLI11: reversed
  try {
    app.parse(arguments);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", app.get_name(), error.what());
    return 1;
  }
}

}  // namespace pi0::tools
