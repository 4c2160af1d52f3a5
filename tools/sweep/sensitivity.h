// pi0 sweep --sensitivity: layers or components ranked by what each alone does to the actions.
#pragma once

#include "tools/sweep/sweep_options.h"
#include "tools/sweep/sweep_run.h"

namespace pi0::tools {

// Writes sensitivity.json and .csv and prints the ranking. With --budget also writes rules.json and budget.json: the
// largest number of the least sensitive layers that together keep the action RMSE within it.
void rank_sensitivity(const SweepOptions& options, SweepRun& run);

}  // namespace pi0::tools
