// Quantization as the command line asks for it: hooks on a model, statistics on disk.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/pi0.h"
#include "quant/attach.h"
#include "quant/report.h"
#include "quant/stats_book.h"
#include "tools/common/quant_options.h"

namespace pi0::tools {

// Hooks without statistics. Weights that they keep as codes are freed, so the model needs the hooks from now on.
std::unique_ptr<quant::Attachment> attach_unmeasured(model::Pi0& model, const QuantOptions& options,
                                                     quant::PlanRequest plan,
                                                     std::function<void(const std::string&)> warn);

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

  // Runs `work` as if it were a request, and discards what was measured.
  template <class Work>
  void warm_up(Work&& work) {
    attachment_->measure(true);
    work();
    book_.drop_request();
  }

  // Adds `answered`, the answers that reached their clients since now or the last reset, to reports.
  void count_answers(std::function<std::uint64_t()> answered);

  // For requests that share calls of the model: begin() says which of the next `count` are measured. Each call is then
  // of requests that are all measured or all not. `call` returns which of them were answered.
  std::vector<bool> begin(std::size_t count);
  void count_batch(bool measured, const std::function<std::vector<bool>()>& call);

  std::size_t site_count() const { return attachment_->site_count(); }
  quant::StatsSnapshot snapshot() const { return book_.snapshot(); }
  std::string report() const { return report(book_.snapshot()); }  // JSON, from any thread
  std::string table() const { return quant::report_table(book_.snapshot()); }
  void reset();
  // Writes the report to --stats-output, if given. Returns a line for the log, or nothing.
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

}  // namespace pi0::tools
