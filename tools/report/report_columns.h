// The tables of a report and their columns, which docs/results.md explains.
#pragma once

#include <vector>

#include "tools/report/report_data.h"

namespace pi0::tools {

std::vector<ReportTable> empty_tables();

}  // namespace pi0::tools
