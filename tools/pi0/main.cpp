// pi0: offline work with Pi0 and Pi0.5 policies, one subcommand each.
#include <CLI/CLI.hpp>

#include "tools/common/command_line.h"
#include "tools/common/commands.h"
#include "tools/common/openmp_spins.h"
#include "tools/common/version.h"

int main(int argc, char** argv) {
  pi0::tools::forget_openmp_spins();
  CLI::App app("Runs, inspects and talks to Pi0 and Pi0.5 policies.", "pi0");
  app.set_version_flag("--version", pi0::tools::version());
  app.require_subcommand(1);
  pi0::tools::add_list_layers(app);
  pi0::tools::add_infer(app);
  pi0::tools::add_client(app);
  pi0::tools::add_inspect(app);
  pi0::tools::add_convert(app);
  pi0::tools::add_make_checkpoint(app);
  pi0::tools::add_round(app);
  pi0::tools::add_matmul(app);
  pi0::tools::add_bench(app);
  pi0::tools::add_sweep(app);
  pi0::tools::add_calibrate(app);
  pi0::tools::add_merge(app);
  pi0::tools::add_closed_loop(app);
  pi0::tools::add_report(app);
  pi0::tools::end_program(pi0::tools::run_program(app, argc, argv));
}
