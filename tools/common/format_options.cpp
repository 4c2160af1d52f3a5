#include "tools/common/format_options.h"

#include <CLI/CLI.hpp>
#include <stdexcept>

#include "tools/common/option_checks.h"

namespace pi0::tools {
namespace {

using quant::NumberFormat;
using quant::SiteFormats;

// The value of an option's text, which `parse` reads or refuses.
template <class Parse>
auto parsed_by(const Parse& parse, const std::string& option, const std::string& text) {
  try {
    return parse(text);
  } catch (const std::invalid_argument& error) {
    throw CLI::ValidationError(option, error.what());
  }
}

NumberFormat parsed(const std::string& option, const std::string& name) {
  return parsed_by(quant::parse_format, option, name);
}

formats::Accumulator parsed_accumulator(const std::string& option, const std::string& name) {
  return parsed_by(formats::parse_accumulator, option, name);
}

// "input/output" or "input/weight/output".
SiteFormats parsed_roles(const std::string& option, const std::string& text) {
  const std::vector<std::string> names = CLI::detail::split(text, '/');
  if (text.ends_with('/') || names.size() < 2 || names.size() > 3) {
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

void add_accumulator_options(CLI::App& app, formats::Accumulator& accumulator, const std::string& group_name) {
  CLI::Option* name =
      app.add_option_function<std::string>(
             "--accumulator",
             [&accumulator](const std::string& text) { accumulator = parsed_accumulator("--accumulator", text); },
             "How sums of products are accumulated: float32, bfloat16:N or float16:N (in order, rounded after every N "
             "products), or pi0-quant's models of hardware, ipt and systolic; default: float32")
          ->type_name("ACCUMULATOR")
          ->group(group_name);
  choose(app.add_option_function<std::string>(
             "--functional-model",
             [&accumulator](const std::string& text) { accumulator = parsed_accumulator("--functional-model", text); },
             "The same as --accumulator, as pi0-quant names it"),
         {"ipt", "systolic"})
      ->excludes(name)
      ->group(group_name);
}

CLI::Option* add_noise_option(CLI::App& app, std::optional<formats::Noise>& noise, const std::string& group_name) {
  const bool is_taken = app.get_option_no_throw("--noise") != nullptr;
  return app
      .add_option_function<std::string>(
          is_taken ? "--output-noise" : "--output-noise,--noise",
          [&noise](const std::string& text) { noise = parsed_by(formats::parse_noise, "--output-noise", text); },
          "Add to every output, after it is rounded, plus or minus R of it (relative:R), or N steps of a format's grid "
          "(ulp:N,FORMAT); signs follow from a seed, 0 or that of a ,seed:S behind it")
      ->type_name("NOISE")
      ->group(group_name);
}

FormatLists::FormatLists() {
  for (const quant::Format format : quant::all_formats) inputs.push_back({format});
  outputs = inputs;
}

std::vector<SiteFormats> FormatLists::settings() const {
  std::vector<SiteFormats> settings = named;
  for (const NumberFormat& input : named.empty() ? inputs : std::vector<NumberFormat>()) {
    for (const NumberFormat& weight : weights.empty() ? std::vector{without_static(input)} : weights) {
      for (const NumberFormat& output : outputs) settings.emplace_back(input, output).weight = weight;
    }
  }
  for (SiteFormats& setting : settings) {
    setting.kv_cache = kv_cache;
    setting.vector = vector;
    setting.methods.rotate |= methods.rotate;
    setting.methods.smooth = methods.smooth;
    setting.methods.clip = methods.clip;
    setting.noise = noise;
  }
  if (accumulators.empty()) return settings;
  std::vector<SiteFormats> accumulated;
  for (const SiteFormats& setting : settings) {
    for (const formats::Accumulator& accumulator : accumulators) {
      accumulated.push_back(setting);
      accumulated.back().accumulator = accumulator;
    }
  }
  return accumulated;
}

const std::vector<NamedFormats>& preset_formats() {
  // Outputs of scaled products are bfloat16, as accelerators give them.
  static const std::vector<NamedFormats> presets = [] {
    std::vector<NamedFormats> list;
    const auto add = [&](const std::string& name, const char* input, const char* weight, const char* output) {
      list.push_back({name, SiteFormats(quant::parse_format(input), quant::parse_format(output))});
      list.back().formats.weight = quant::parse_format(weight);
      return &list.back().formats;
    };
    for (const char* plain : {"float16", "bfloat16"}) add(plain, plain, plain, plain);
    for (const char* scaled :
         {"float8_e4m3", "float8_e5m2", "float8_e4m3:tensor", "float8_e4m3:row", "float8_e4m3:tile128", "mxfp8_e4m3",
          "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxint8", "mxfp4", "nvfp4"}) {
      add(scaled, scaled, scaled, "bfloat16");
    }
    add("W8A8", "int8:row", "int8:row", "bfloat16");
    add("W4A16", "bfloat16", "int4:group128", "bfloat16");
    add("W4A8", "int8:row", "int4:group128", "bfloat16");
    add("W4A4", "int4:group128", "int4:group128", "bfloat16");
    add("W4A4 rotated", "int4:group128", "int4:group128", "bfloat16")->methods.rotate = true;
    return list;
  }();
  return presets;
}

void add_method_options(CLI::App& app, formats::Methods& methods, const std::string& group_name) {
  app.add_flag(
         "--rotate", methods.rotate,
         "Multiply inputs and weights of linears by a Hadamard matrix before they are rounded, in blocks of 64 inputs "
         "or of the largest power of two that divides them")
      ->group(group_name);
  app.add_option("--smooth", methods.smooth,
                 "Move magnitude from input channels to weights before they are rounded: alpha, 0.5 is usual; needs "
                 "--calibration")
      ->check(between(0, 1))
      ->group(group_name);
  app.add_option(
         "--clip", methods.clip,
         "Clip weights to this percentile of their magnitudes, and with --calibration inputs to that of theirs, "
         "which the file must have")
      ->check(between(50, 100))
      ->group(group_name);
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
  std::string names;
  for (const NamedFormats& preset : preset_formats()) names += (names.empty() ? "" : ", ") + preset.name;
  app.add_flag_callback(
         "--presets",
         [&formats] {
           for (const NamedFormats& preset : preset_formats()) formats.named.push_back(preset.formats);
         },
         "Instead: what one would try first: " + names)
      ->excludes(inputs)
      ->excludes(weights)
      ->excludes(outputs)
      ->excludes("--pairs")
      ->group(group_name);
  add_list(app, "--accumulators", formats.accumulators, "ACCUMULATOR,...",
           "Accumulators, each setting under each: float32, bfloat16:N, float16:N, ipt, systolic; default: float32",
           parsed_accumulator)
      ->group(group_name);
  add_noise_option(app, formats.noise, group_name);
  add_method_options(app, formats.methods, group_name);
  app.get_option("--rotate")->excludes("--presets");  // which has settings with and without
  add_format(app, "--kv-cache-fmt", formats.kv_cache, "Format of the prefix's keys and values, of all settings")
      ->group(group_name);
  add_format(app, "--vector-fmt", formats.vector, "Format of the operations between products, of all settings")
      ->group(group_name);
}

}  // namespace pi0::tools
