// Quantization as the command line asks for it: options, hooks on a model, statistics on disk.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "model/pi0.h"
#include "quant/attach.h"
#include "quant/report.h"
#include "quant/stats_book.h"

namespace pi0::tools {

struct QuantOptions {
  std::optional<std::string> input_fmt;
  std::optional<std::string> output_fmt;
  std::filesystem::path rules;
  quant::AttentionScope attention = quant::AttentionScope::all;
  std::vector<std::string> skip_components;
  std::filesystem::path stats_output;
  std::int64_t stats_every = 1;  // observe every so many requests

  // Hooks are attached only when something asks for them.
  bool asked() const { return input_fmt || output_fmt || !rules.empty() || !stats_output.empty(); }
};

// `options` must outlive `app`.
void add_quant_options(CLI::App& app, QuantOptions& options);
void add_scope_options(CLI::App& app, QuantOptions& options);  // of these, attention and components

std::vector<std::string> format_names();

std::string name_of(quant::AttentionScope scope);  // as on the command line

// Formats, rules, skipped components and the place of the statistics, checked before any weight is
// read. Throws std::invalid_argument, quant::RulesError and, for a place that cannot be written,
// std::runtime_error.
quant::PlanRequest plan_request(const QuantOptions& options);

// Hooks on a model for as long as it lives, and their statistics.
class QuantSession {
 public:
  // `meta` goes into every report, with the formats added. The model must outlive the session.
  // `plan` is plan_request(options).
  QuantSession(model::Pi0& model, const QuantOptions& options, const quant::PlanRequest& plan,
               nlohmann::ordered_json meta, std::function<void(const std::string&)> warn);

  // Runs one request on the model's thread and counts it if it ends well; a batch of tensors is one
  // observation, as in pi0-quant.
  template <class Work>
  auto count(Work&& work) {
    try {
      auto answer = work();
      book_.finish_request(quant::StatsBook::Measured::yes);
      return answer;
    } catch (...) {
      book_.drop_request();
      throw;
    }
  }

  // Runs what calls the model as with requests, and forgets what was measured.
  template <class Work>
  void warm_up(Work&& work) {
    attachment_->measure(true);
    work();
    book_.drop_request();
  }

  // Where a report finds how many answers reached their clients: `answered`, counted from now or the last reset on.
  void count_answers(std::function<std::uint64_t()> answered);

  // For requests that share calls of the model: first which of the next `count` are measured, then
  // each call, of requests that all are or all are not. `call` says which of them were answered.
  std::vector<bool> begin(std::size_t count);
  void count_batch(bool measured, const std::function<std::vector<bool>()>& call);

  std::size_t site_count() const { return attachment_->site_count(); }
  quant::StatsSnapshot snapshot() const { return book_.snapshot(); }
  std::string report() const { return report(book_.snapshot()); }  // JSON, from any thread
  std::string table() const { return quant::report_table(book_.snapshot()); }
  void reset();
  // The report to --stats-output, whole; nothing without one. Returns a line that says so, or nothing.
  std::string write() const;

 private:
  std::string report(const quant::StatsSnapshot& seen) const;

  std::filesystem::path output_;
  std::int64_t every_;
  std::int64_t begun_ = 0;
  std::function<std::uint64_t()> answered_;
  std::atomic<std::uint64_t> answered_before_ = 0;
  nlohmann::ordered_json meta_;
  quant::StatsBook book_;
  std::unique_ptr<quant::Attachment> attachment_;
};

// What is known before the model runs: version, config, device, precision, steps.
nlohmann::ordered_json report_meta(const std::string& config, at::Device device, model::Precision precision,
                                   std::int64_t num_steps);

}  // namespace pi0::tools
