#include "tools/common/format_lists.h"

#include <CLI/CLI.hpp>
#include <cstddef>
#include <stdexcept>

#include "quant/format.h"
#include "tools/common/option_checks.h"

namespace pi0::tools {
namespace {

CLI::Validator pair_of_formats() {
  const auto check = [](const std::string& pair) {
    const std::size_t slash = pair.find('/');
    if (slash == std::string::npos) return "found '" + pair + "', expected two formats with a '/' between them";
    for (const std::string& name : {pair.substr(0, slash), pair.substr(slash + 1)}) {
      try {
        quant::parse_format(name);
      } catch (const std::invalid_argument& error) {
        return "'" + pair + "': " + error.what();
      }
    }
    return std::string();
  };
  return {check, ""};
}

}  // namespace

std::vector<std::string> format_names() {
  std::vector<std::string> names;
  for (const quant::Format format : quant::all_formats) names.emplace_back(name_of(format));
  return names;
}

FormatLists::FormatLists() : input_fmts(format_names()), output_fmts(input_fmts) {}

std::vector<std::pair<std::string, std::string>> FormatLists::pairs() const {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const std::string& pair : named_pairs) {
    const std::size_t slash = pair.find('/');
    pairs.emplace_back(pair.substr(0, slash), pair.substr(slash + 1));
  }
  if (!pairs.empty()) return pairs;
  for (const std::string& input : input_fmts) {
    for (const std::string& output : output_fmts) pairs.emplace_back(input, output);
  }
  return pairs;
}

void add_format_lists(CLI::App& app, FormatLists& formats, const std::string& group_name) {
  CLI::Option* inputs =
      choose(app.add_option("--input-fmts", formats.input_fmts, "Formats of matmul inputs and weights; default: all"),
             format_names())
          ->delimiter(',')
          ->group(group_name);
  CLI::Option* outputs =
      choose(app.add_option("--output-fmts", formats.output_fmts, "Formats of matmul outputs; default: all"),
             format_names())
          ->delimiter(',')
          ->group(group_name);
  app.add_option("--pairs", formats.named_pairs,
                 "Instead of both: pairs of formats, input/output, for example float8_e4m3/float16,bfloat16/bfloat16")
      ->check(pair_of_formats())
      ->delimiter(',')
      ->excludes(inputs)
      ->excludes(outputs)
      ->group(group_name);
}

}  // namespace pi0::tools
