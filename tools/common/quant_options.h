// The options that say how a model is quantized, and the plan that they ask for.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "model/pi0.h"
#include "quant/quant_plan.h"
#include "tools/common/cli_fwd.h"

namespace pi0::tools {

struct QuantOptions {
  std::optional<quant::NumberFormat> input_fmt, weight_fmt, output_fmt, kv_cache_fmt, vector_fmt;
  formats::Methods methods;
  formats::Accumulator accumulator;
  std::optional<formats::Noise> noise;
  std::filesystem::path rules;
  std::filesystem::path calibration;  // of pi0 calibrate
  quant::AttentionScope attention = quant::AttentionScope::all;
  std::vector<std::string> skip_components;
  std::filesystem::path stats_output;
  std::int64_t stats_every = 1;  // observe every so many requests
  bool no_statistics = false;    // measure nothing, and free the weights that hooks replace
  bool split_errors = false;     // statistics by cause, too

  // Hooks are attached only when something asks for them.
  bool asked() const { return has_formats() || !rules.empty() || !stats_output.empty(); }
  bool has_formats() const {
    return input_fmt || weight_fmt || output_fmt || kv_cache_fmt || vector_fmt || methods.any() || noise ||
           accumulator != formats::Accumulator{};
  }
};

// `options` must outlive `app`.
void add_quant_options(CLI::App& app, QuantOptions& options);
void add_scope_options(CLI::App& app, QuantOptions& options);  // only attention, components and causes
CLI::Option* add_skip_option(CLI::App& app, std::vector<std::string>& components, const std::string& description);
std::set<model::Component> skipped(const std::vector<std::string>& components);

CLI::Option* add_calibration_option(CLI::App& app, QuantOptions& options);

quant::SiteFormats formats_of(const QuantOptions& options);  // float32 where none is given; weights as inputs

// Throws std::invalid_argument for --split-errors where nothing is measured.
void check_split_errors(const QuantOptions& options);

std::string name_of(quant::AttentionScope scope);  // as on the command line

// Formats, rules, skipped components and the place of the statistics, checked before any weight is
// read. Throws std::invalid_argument, quant::RulesError and, for a place that cannot be written,
// std::runtime_error.
quant::PlanRequest plan_request(const QuantOptions& options);

// Throws std::invalid_argument for formats in roles that they do not have, and for smoothing or static scales without a
// calibration. plan_request() does it for its own rules.
void check_methods(const quant::PlanRequest& request, const QuantOptions& options);

// The file of --calibration; null without one. Throws model::CheckpointError if it is of another model.
std::shared_ptr<const quant::Calibration> read_calibration(const QuantOptions& options, const model::SiteList& sites);

// What is known before the model runs: version, config, device, precision, steps.
nlohmann::ordered_json report_meta(const std::string& config, at::Device device, model::Precision precision,
                                   std::int64_t num_steps);

}  // namespace pi0::tools
