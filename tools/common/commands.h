// The subcommands of `pi0`. Each function adds one; its options belong to a callback, which CLI11 runs when the
// subcommand is chosen.
#pragma once

#include "tools/common/cli_fwd.h"

namespace pi0::tools {

void add_list_layers(CLI::App& app);
void add_infer(CLI::App& app);
void add_client(CLI::App& app);
void add_make_checkpoint(CLI::App& app);
void add_convert(CLI::App& app);
void add_inspect(CLI::App& app);
void add_round(CLI::App& app);
void add_matmul(CLI::App& app);
void add_bench(CLI::App& app);
void add_sweep(CLI::App& app);
void add_calibrate(CLI::App& app);
void add_merge(CLI::App& app);
void add_closed_loop(CLI::App& app);
void add_report(CLI::App& app);

}  // namespace pi0::tools
