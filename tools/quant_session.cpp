#include "tools/quant_session.h"

#include <fmt/format.h>

#include <stdexcept>

#include "protocol/files.h"
#include "tools/option_checks.h"
#include "tools/print.h"
#include "tools/version.h"

namespace pi0::tools {
namespace {

using quant::AttentionScope;

constexpr const char* group = "Quantization";  // in --help

const std::vector<std::pair<std::string, AttentionScope>> attention_scopes = {
    {"none", AttentionScope::none}, {"vision", AttentionScope::vision}, {"all", AttentionScope::all}};

// One format given: the other is float32. None: statistics of full precision.
quant::FormatPair formats_of(const QuantOptions& options) {
  return {quant::parse_format(options.input_fmt.value_or("float32")),
          quant::parse_format(options.output_fmt.value_or("float32"))};
}

}  // namespace

std::string name_of(AttentionScope scope) {
  for (const auto& [name, each] : attention_scopes) {
    if (each == scope) return name;
  }
  throw std::logic_error("an attention scope has no name");
}

std::vector<std::string> format_names() {
  std::vector<std::string> names;
  for (const quant::Format format : quant::all_formats) names.emplace_back(name_of(format));
  return names;
}

void add_scope_options(CLI::App& app, QuantOptions& options) {
  choose_value(app.add_option("--quantize-attention", options.attention,
                              "None, as pi0-quant's serve_quant.py; vision's, SigLIP; or all"),
               attention_scopes)
      ->default_str("all")
      ->group(group);
  choose(
      app.add_option("--skip-components", options.skip_components, "Left in full precision, with commas between them"),
      {"vision", "language", "action_expert", "action_head"})
      ->delimiter(',')
      ->group(group);
}

void add_quant_options(CLI::App& app, QuantOptions& options) {
  CLI::Option* input =
      choose(app.add_option("--input-fmt", options.input_fmt,
                            "Format of matmul inputs and weights; float32 when only the other is given"),
             format_names())
          ->group(group);
  CLI::Option* output =
      choose(app.add_option("--output-fmt", options.output_fmt, "Format of matmul outputs, likewise"), format_names())
          ->group(group);
  app.add_option("--rules", options.rules, "JSON file of formats per layer, instead of one pair")
      ->excludes(input)
      ->excludes(output)
      ->group(group);
  add_scope_options(app, options);
  app.add_option("--stats-output", options.stats_output,
                 "Write per-layer statistics to this file; without formats: of full precision")
      ->group(group);
}

quant::PlanRequest plan_request(const QuantOptions& options) {
  quant::PlanRequest request;
  request.rules = options.rules.empty() ? quant::one_pair(formats_of(options)) : quant::read_rules(options.rules);
  request.attention = options.attention;
  for (const std::string& name : options.skip_components) {
    request.skip.insert(quant::parse_component(name));
  }
  if (!options.stats_output.empty()) protocol::check_writable(options.stats_output);
  return request;
}

nlohmann::ordered_json report_meta(const std::string& config, at::Device device, model::Precision precision,
                                   std::int64_t num_steps) {
  return {{"version", version()},
          {"config", config},
          {"device", device.str()},
          {"precision", precision == model::Precision::bfloat16 ? "bfloat16" : "float32"},
          {"num_steps", num_steps}};
}

QuantSession::QuantSession(model::Pi0& model, const QuantOptions& options, const quant::PlanRequest& plan,
                           nlohmann::ordered_json meta, std::function<void(const std::string&)> warn)
    : output_(options.stats_output), every_(options.stats_every), meta_(std::move(meta)) {
  if (options.rules.empty()) {
    meta_["input_fmt"] = name_of(formats_of(options).input);
    meta_["output_fmt"] = name_of(formats_of(options).output);
  } else {
    meta_["rules"] = options.rules.string();
  }
  meta_["quantize_attention"] = name_of(options.attention);
  meta_["skip_components"] = options.skip_components;
  meta_["stats_every"] = every_;
  attachment_ = quant::attach(model.sites(), plan, &book_, std::move(warn));
}

std::vector<bool> QuantSession::begin(std::size_t count) {
  std::vector<bool> measured(count);
  for (std::size_t i = 0; i < count; ++i) measured[i] = begun_++ % every_ == 0;
  return measured;
}

void QuantSession::count_batch(bool measured, const std::function<std::vector<bool>()>& call) {
  using Measured = quant::StatsBook::Measured;
  attachment_->measure(measured);
  attachment_->observe_samples_apart(true);
  book_.finish_batch(call(), measured ? Measured::yes : Measured::no);
}

void QuantSession::count_answers(std::function<std::uint64_t()> answered) {
  answered_ = std::move(answered);
  answered_before_ = answered_();
}

void QuantSession::reset() {
  book_.reset();
  if (answered_) answered_before_ = answered_();
}

std::string QuantSession::report(const quant::StatsSnapshot& seen) const {
  nlohmann::ordered_json meta = meta_;
  if (answered_) meta["answered"] = answered_() - answered_before_;
  return quant::report_json(seen, meta);
}

std::string QuantSession::write() const {
  if (output_.empty()) return "";
  const quant::StatsSnapshot seen = book_.snapshot();
  protocol::write_whole(output_, report(seen));
  return fmt::format("statistics of {} in {}", counted(static_cast<std::size_t>(seen.measured), "request"),
                     output_.string());
}

}  // namespace pi0::tools
