// A report as one HTML file that needs nothing else: style, script and data are in it.
#pragma once

#include <string>

#include "tools/report/report_data.h"

namespace pi0::tools {

std::string report_page(const ReportData& data, const std::string& title);

}  // namespace pi0::tools
