#include "tools/common/text_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

namespace pi0::tools {

std::string text_table(const std::vector<std::vector<std::string>>& lines, LastColumn last) {
  std::vector<std::size_t> widths(lines.front().size());
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string text;
  for (const auto& line : lines) {
    text += fmt::format("{:<{}}", line.front(), widths.front());
    for (std::size_t i = 1; i < line.size(); ++i) {
      const bool is_name = last == LastColumn::names && i + 1 == line.size();
      text += is_name ? "  " + line[i] : fmt::format("  {:>{}}", line[i], widths[i]);
    }
    text += '\n';
  }
  return text;
}

}  // namespace pi0::tools
