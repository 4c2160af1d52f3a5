// Runs the settings of a sweep on one loaded model and keeps their results on disk.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "quant/attach.h"
#include "tools/common/stop_signals.h"
#include "tools/sweep/setting.h"
#include "tools/sweep/sweep_model.h"
#include "tools/sweep/sweep_options.h"

namespace pi0::tools {

class SweepRun {
 public:
  // Reads all but the weights; throws as SweepModel does. `options` must outlive it.
  explicit SweepRun(const SweepOptions& options);

  // The settings' entries, of an earlier run with --resume or measured now. Throws Stopped after a signal, and
  // std::runtime_error that names the file when there are results that cannot be continued.
  std::vector<nlohmann::ordered_json> entries_of(const std::vector<Setting>& settings);

  const model::SiteList& sites();  // loads the model

  // For --dry-run: loads the model, runs one observation unquantized and in the first setting, and prints what all
  // would take. `more` settings are not known beforehand.
  void print_estimate(const std::vector<Setting>& settings, std::size_t more);

 private:
  nlohmann::ordered_json meta_of(const Setting& setting) const;
  nlohmann::ordered_json earlier_entry(const Setting& setting) const;
  void load();
  std::unique_ptr<quant::Attachment> attach(const Setting& setting, quant::StatsBook& book) const;
  nlohmann::ordered_json measure(const Setting& setting);

  const SweepOptions& options_;
  StopSignals stop_{"sweep"};
  SweepModel model_;
  std::shared_ptr<const quant::Calibration> calibration_;
  nlohmann::ordered_json meta_;  // what results must share to be compared
};

// The action RMSE of an entry; infinite if its actions are not finite.
double action_rmse(const nlohmann::ordered_json& entry);

}  // namespace pi0::tools
