// The figures of a report as SVG files: those of its page, with the same numbers, marks and colours.
#pragma once

#include <string>
#include <vector>

#include "tools/report/report_data.h"

namespace pi0::tools {

struct Figure {
  std::string file;  // a name of letters, digits, dots, lines and dashes; no two have the same
  std::string svg;
};

// Figures that depend on a setting come once for each. Empty where the results have nothing to draw.
std::vector<Figure> figures_of(const ReportData& data);

}  // namespace pi0::tools
