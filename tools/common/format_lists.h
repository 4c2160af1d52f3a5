// The options that name many formats, and the names of all.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tools/common/cli_fwd.h"

namespace pi0::tools {

std::vector<std::string> format_names();

// Pairs of formats, or formats for inputs and for outputs, each combined with each. All formats unless the command line
// names some.
struct FormatLists {
  FormatLists();
  std::vector<std::string> input_fmts, output_fmts;
  std::vector<std::string> named_pairs;  // "float8_e4m3/float16"; if there are any, the lists do not count

  std::vector<std::pair<std::string, std::string>> pairs() const;  // of lists, all of the first input format first
};
// --input-fmts, --output-fmts and --pairs.
void add_format_lists(CLI::App& app, FormatLists& formats, const std::string& group);

}  // namespace pi0::tools
