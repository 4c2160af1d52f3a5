#include "tools/common/quant_session.h"

#include <fmt/format.h>

#include "protocol/files.h"
#include "tools/common/format_fields.h"
#include "tools/common/print.h"

namespace pi0::tools {

std::unique_ptr<quant::Attachment> attach_unmeasured(model::Pi0& model, const QuantOptions& options,
                                                     quant::PlanRequest plan,
                                                     std::function<void(const std::string&)> warn) {
  plan.calibration = read_calibration(options, model.sites());
  auto attachment = quant::attach(model.sites(), plan, nullptr, std::move(warn));
  attachment->release_weights();
  return attachment;
}

QuantSession::QuantSession(model::Pi0& model, const QuantOptions& options, const quant::PlanRequest& plan,
                           nlohmann::ordered_json meta, std::function<void(const std::string&)> warn)
    : output_(options.stats_output), every_(options.stats_every), meta_(std::move(meta)) {
  if (options.rules.empty()) {
    meta_.update(fields_of(formats_of(options)));
  } else {
    meta_["rules"] = options.rules.string();
  }
  meta_["quantize_attention"] = name_of(options.attention);
  meta_["skip_components"] = options.skip_components;
  meta_["stats_every"] = every_;
  if (!options.calibration.empty()) meta_["calibration"] = options.calibration.string();
  quant::PlanRequest request = plan;
  request.calibration = read_calibration(options, model.sites());
  attachment_ = quant::attach(model.sites(), request, &book_, std::move(warn));
  if (options.split_errors) {
    attachment_->split_errors();
    meta_["split_errors"] = true;
  }
  meta_.update(fields_of(attachment_->weight_size()));
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
