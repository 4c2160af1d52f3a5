#include "tools/common/quant_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <stdexcept>

#include "protocol/files.h"
#include "quant/calibration.h"
#include "tools/common/format_options.h"
#include "tools/common/option_checks.h"
#include "tools/common/version.h"

namespace pi0::tools {
namespace {

using quant::AttentionScope;

constexpr const char* group = "Quantization";  // in --help

const std::vector<std::pair<std::string, AttentionScope>> attention_scopes = {
    {"none", AttentionScope::none}, {"vision", AttentionScope::vision}, {"all", AttentionScope::all}};

std::vector<std::string> component_names() {
  std::vector<std::string> names;
  for (const model::Component component : {model::Component::vision, model::Component::language,
                                           model::Component::action_expert, model::Component::action_head}) {
    names.emplace_back(model::name_of(component));
  }
  return names;
}

}  // namespace

quant::SiteFormats formats_of(const QuantOptions& options) {
  const quant::NumberFormat float32;
  quant::SiteFormats formats(options.input_fmt.value_or(float32), options.output_fmt.value_or(float32));
  formats.weight = options.weight_fmt.value_or(formats.weight);
  formats.kv_cache = options.kv_cache_fmt;
  formats.vector = options.vector_fmt;
  formats.methods = options.methods;
  formats.accumulator = options.accumulator;
  formats.noise = options.noise;
  return formats;
}

void check_split_errors(const QuantOptions& options) {
  if (!options.split_errors || options.asked()) return;
  throw std::invalid_argument("--split-errors: nothing is measured; give formats, --rules or --stats-output");
}

std::string name_of(AttentionScope scope) {
  for (const auto& [name, each] : attention_scopes) {
    if (each == scope) return name;
  }
  throw std::logic_error("an attention scope has no name");
}

void add_scope_options(CLI::App& app, QuantOptions& options) {
  choose_value(
      app.add_option("--quantize-attention", options.attention,
                     "Which attention is quantized: none, as in pi0-quant's serve_quant.py; vision, SigLIP's; or all"),
      attention_scopes)
      ->default_str("all")
      ->group(group);
  add_skip_option(app, options.skip_components, "Components that stay in full precision, separated by commas")
      ->group(group);
  app.add_flag("--split-errors", options.split_errors,
               "Measure each layer's error by cause, too: of rounded operands, of accumulation, of the rounded output")
      ->group(group);
}

CLI::Option* add_calibration_option(CLI::App& app, QuantOptions& options) {
  return app
      .add_option("--calibration", options.calibration,
                  "File of pi0 calibrate, for --smooth, --clip, static scales and rules that have them")
      ->check(CLI::ExistingFile);
}

CLI::Option* add_skip_option(CLI::App& app, std::vector<std::string>& components, const std::string& description) {
  return choose(app.add_option("--skip-components", components, description), component_names())->delimiter(',');
}

std::set<model::Component> skipped(const std::vector<std::string>& components) {
  std::set<model::Component> skip;
  for (const std::string& name : components) skip.insert(quant::parse_component(name));
  return skip;
}

void add_quant_options(CLI::App& app, QuantOptions& options) {
  const auto add = [&](const char* name, std::optional<quant::NumberFormat>& format, const char* description) {
    return add_format(app, name, format, description)->group(group);
  };
  CLI::Option* rules =
      app.add_option("--rules", options.rules, "JSON file of formats per layer, instead of these")->group(group);
  for (CLI::Option* format :
       {add("--input-fmt", options.input_fmt,
            "Format of matmul inputs and weights, as float8_e4m3, mxfp8_e4m3, int8:row or ELEMENT[:GRANULARITY[:RULE]] "
            "(docs/formats.md); float32 if only others are given"),
        add("--weight-fmt", options.weight_fmt, "Format of weights alone, as int4:group128; default: as inputs"),
        add("--output-fmt", options.output_fmt, "Format of matmul outputs; float32 if only others are given"),
        add("--kv-cache-fmt", options.kv_cache_fmt,
            "Format of the prefix's keys and values, which all denoise steps read; default: they stay as they are"),
        add("--vector-fmt", options.vector_fmt,
            "Format of inputs and results of norms, softmax, activations, residual additions and rotary embedding; "
            "default: they stay as they are")}) {
    rules->excludes(format);
  }
  add_method_options(app, options.methods, group);
  add_calibration_option(app, options)->group(group);
  add_accumulator_options(app, options.accumulator, group);
  add_noise_option(app, options.noise, group);
  for (const char* own : {"--rotate", "--smooth", "--clip", "--accumulator", "--functional-model", "--output-noise"}) {
    rules->excludes(own);
  }
  add_scope_options(app, options);
  app.add_option("--stats-output", options.stats_output,
                 "Write per-layer statistics to this file; without formats, those of full precision")
      ->group(group);
}

quant::PlanRequest plan_request(const QuantOptions& options) {
  quant::PlanRequest request;
  request.rules = options.rules.empty() ? quant::one_rule(formats_of(options)) : quant::read_rules(options.rules);
  request.attention = options.attention;
  request.skip = skipped(options.skip_components);
  if (!options.stats_output.empty()) protocol::check_writable(options.stats_output);
  check_methods(request, options);
  return request;
}

void check_methods(const quant::PlanRequest& request, const QuantOptions& options) {
  for (const quant::Rule& rule : request.rules) {
    if (!rule.formats) continue;
    check(*rule.formats);
    if (!rule.formats->needs_calibration() || !options.calibration.empty()) continue;
    throw std::invalid_argument(std::string(rule.formats->methods.smooth ? "smoothing" : "a static scale") +
                                " needs --calibration, a file that pi0 calibrate writes");
  }
}

std::shared_ptr<const quant::Calibration> read_calibration(const QuantOptions& options, const model::SiteList& sites) {
  return options.calibration.empty() ? nullptr : std::make_shared<const quant::Calibration>(options.calibration, sites);
}

nlohmann::ordered_json report_meta(const std::string& config, at::Device device, model::Precision precision,
                                   std::int64_t num_steps) {
  return {{"version", version()},
          {"config", config},
          {"device", device.str()},
          {"precision", precision == model::Precision::bfloat16 ? "bfloat16" : "float32"},
          {"num_steps", num_steps}};
}

}  // namespace pi0::tools
