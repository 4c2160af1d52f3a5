// Tables as text for a terminal.
#pragma once

#include <string>
#include <vector>

namespace pi0::tools {

// The last column, too, is aligned to the left where it holds names.
enum class LastColumn { numbers, names };

// Lines of the same number of cells, with the first column to the left and the others to the right, two blanks apart.
std::string text_table(const std::vector<std::vector<std::string>>& lines, LastColumn last = LastColumn::numbers);

}  // namespace pi0::tools
