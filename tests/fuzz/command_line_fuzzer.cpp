// Whatever stands on pi0-server's command line, an argument a line: options that fit together, or a documented exit
// code.
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "tools/common/command_line.h"
#include "tools/serve/server_options.h"

// clang 14 cannot ask for all of a CPU's features; which ones it has is not what is tried here.
namespace pi0::model {
std::vector<InstructionSet> instruction_sets() { return {InstructionSet::portable}; }
std::string_view name_of(InstructionSet) { return "portable"; }
}  // namespace pi0::model

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  std::istringstream lines(std::string(reinterpret_cast<const char*>(bytes), size));
  std::vector<std::string> arguments = {"pi0-server"};
  for (std::string line; std::getline(lines, line);) arguments.push_back(line.c_str());  // arguments hold no NUL
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());

  CLI::App app("", "pi0-server");
  pi0::tools::ProgramOptions options;
  pi0::tools::add_program_options(app, options);
  app.callback([&] { pi0::tools::settle(options, app); });
  const int code = pi0::tools::run_program(app, static_cast<int>(argv.size()), argv.data());
  if (code < 0 || code > 2) std::abort();
  return 0;
}
