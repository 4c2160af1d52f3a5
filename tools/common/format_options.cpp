#include "tools/common/format_options.h"

#include <CLI/CLI.hpp>
#include <stdexcept>

namespace pi0::tools {
namespace {

using quant::NumberFormat;
using quant::SiteFormats;

NumberFormat parsed(const std::string& option, const std::string& name) {
  try {
    return quant::parse_format(name);
  } catch (const std::invalid_argument& error) {
    throw CLI::ValidationError(option, error.what());
  }
}

// "input/output" or "input/weight/output".
SiteFormats parsed_roles(const std::string& option, const std::string& text) {
  const std::vector<std::string> names = CLI::detail::split(text, '/');
  if (names.size() < 2 || names.size() > 3) {
    throw CLI::ValidationError(option, "found '" + text + "', expected INPUT/OUTPUT or INPUT/WEIGHT/OUTPUT");
  }
  SiteFormats formats(parsed(option, names.front()), parsed(option, names.back()));
  if (names.size() == 3) formats.weight = parsed(option, names[1]);
  return formats;
}

// A list separated by commas; each word is read by `read`.
template <class Value, class Read>
CLI::Option* add_list(CLI::App& app, const std::string& name, std::vector<Value>& values, const std::string& type,
                      const std::string& description, const Read& read) {
  return app
      .add_option_function<std::vector<std::string>>(
          name,
          [name, &values, read](const std::vector<std::string>& words) {
            values.clear();
            for (const std::string& word : words) values.push_back(read(name, word));
          },
          description)
      ->delimiter(',')
      ->type_name(type);
}

}  // namespace

CLI::Option* add_format(CLI::App& app, const std::string& name, std::optional<NumberFormat>& format,
                        const std::string& description) {
  return app
      .add_option_function<std::string>(
          name, [name, &format](const std::string& word) { format = parsed(name, word); }, description)
      ->type_name("FORMAT");
}

FormatLists::FormatLists() {
  for (const quant::Format format : quant::all_formats) inputs.push_back({format});
  outputs = inputs;
}

std::vector<SiteFormats> FormatLists::settings() const {
  std::vector<SiteFormats> settings = named;
  for (const NumberFormat& input : named.empty() ? inputs : std::vector<NumberFormat>()) {
    for (const NumberFormat& weight : weights.empty() ? std::vector{input} : weights) {
      for (const NumberFormat& output : outputs) settings.emplace_back(input, output).weight = weight;
    }
  }
  for (SiteFormats& setting : settings) setting.kv_cache = kv_cache;
  return settings;
}

void add_format_lists(CLI::App& app, FormatLists& formats, const std::string& group_name) {
  const auto add = [&](const char* name, std::vector<NumberFormat>& list, const char* description) {
    return add_list(app, name, list, "FORMAT,...", description, parsed)->group(group_name);
  };
  CLI::Option* inputs =
      add("--input-fmts", formats.inputs, "Formats of matmul inputs and weights; default: the five plain casts");
  CLI::Option* weights = add("--weight-fmts", formats.weights, "Formats of weights alone; default: those of inputs");
  CLI::Option* outputs = add("--output-fmts", formats.outputs, "Formats of matmul outputs; default: as of inputs");
  add_list(app, "--pairs", formats.named, "INPUT[/WEIGHT]/OUTPUT,...",
           "Instead: formats of one setting after the other, for example "
           "float8_e4m3/float16,bfloat16/int4:group128/bfloat16",
           parsed_roles)
      ->excludes(inputs)
      ->excludes(weights)
      ->excludes(outputs)
      ->group(group_name);
  add_format(app, "--kv-cache-fmt", formats.kv_cache, "Format of the prefix's keys and values, of all settings")
      ->group(group_name);
}

}  // namespace pi0::tools
