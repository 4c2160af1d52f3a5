#include "model/policy/lerobot_processor.h"

#include <algorithm>

#include "model/policy/lerobot_config.h"
#include "model/safetensors.h"

namespace pi0::policy {
namespace {

namespace fs = std::filesystem;
using model::JsonFields;

bool contains(const std::vector<std::string>& list, const std::string& item) {
  return std::ranges::find(list, item) != list.end();
}

}  // namespace

Normalization read_lerobot_normalization(JsonFields map, const std::string& type) {
  if (map.has("VISUAL")) require_value(map, "VISUAL", "IDENTITY", "pictures are not normalised by statistics");
  const std::string mode = map.text(type);
  if (mode == "MEAN_STD") return Normalization::lerobot_z_score;
  if (mode == "QUANTILES") return Normalization::lerobot_quantile;
  map.mistyped(type, "\"MEAN_STD\" or \"QUANTILES\": no other normalization is supported");
}

FieldStats read_lerobot_stats(Normalization form, const std::string& source, const std::string& prefix,
                              std::int64_t size,
                              const std::function<std::optional<at::Tensor>(const std::string&)>& find) {
  const auto read = [&](const char* statistic) {
    const std::string name = prefix + "." + statistic;
    const auto refuse = [&](const std::string& what) { throw NormStatsError(source + ": '" + name + "' " + what); };
    const std::optional<at::Tensor> tensor = find(name);
    if (!tensor) refuse("is missing; without statistics the answers would not be in the robot's units");
    if (tensor->sizes() != at::IntArrayRef{size}) {
      refuse(c10::str("has shape ", tensor->sizes(), ", expected [", size, "]"));
    }
    const at::Tensor values = tensor->to(at::kFloat).to(at::kDouble).contiguous();  // LeRobot computes in float32
    if (!values.isfinite().all().item<bool>()) {
      refuse("has values that are not finite; was the policy saved without statistics?");
    }
    return std::vector<double>(values.const_data_ptr<double>(), values.const_data_ptr<double>() + size);
  };
  FieldStats stats;
  const bool quantile = form == Normalization::lerobot_quantile;
  (quantile ? stats.q01 : stats.mean) = read(quantile ? "q01" : "mean");
  (quantile ? stats.q99 : stats.std) = read(quantile ? "q99" : "std");
  return stats;
}

LeRobotProcessor::LeRobotProcessor(fs::path file, const std::vector<std::string>& known)
    : file_(std::move(file)), json_(model::read_json(file_)) {
  JsonFields fields(json_, file_.string());
  auto next = known.begin();
  for (JsonFields& step : fields.objects("steps")) {
    const std::string name = step.text(step.has("registry_name") ? "registry_name" : "class");
    const auto found = std::find(next, known.end(), name);
    if (found == known.end()) {
      std::string expected;
      for (const std::string& each : known) expected += (expected.empty() ? "" : ", ") + each;
      step.refuse("the step '" + name + "' is unknown or in another order; expected, in this order: " + expected);
    }
    next = found + 1;
    steps_.emplace_back(name, step);
  }
}

bool LeRobotProcessor::has(const std::string& name) const {
  return std::ranges::find(steps_, name, &std::pair<std::string, JsonFields>::first) != steps_.end();
}

JsonFields& LeRobotProcessor::step(const std::string& name) {
  const auto found = std::ranges::find(steps_, name, &std::pair<std::string, JsonFields>::first);
  if (found == steps_.end()) refuse("the step '" + name + "' is missing");
  return found->second;
}

JsonFields LeRobotProcessor::config(const std::string& name) { return step(name).object("config"); }

void LeRobotProcessor::refuse(const std::string& what) const {
  throw model::JsonFileError(file_.string() + ": " + what);
}

LeRobotNormalized LeRobotProcessor::normalized(const std::string& name, const std::string& type, const std::string& key,
                                               std::int64_t size) {
  JsonFields fields = config(name);
  require_value(fields, "eps", 1e-8, "another epsilon is not supported");
  bool is_feature = false;
  for (const LeRobotFeature& feature : read_lerobot_features(fields, "features")) {
    is_feature = is_feature || (feature.key == key && feature.type == type);
  }
  const bool has_keys = fields.has("normalize_observation_keys") && type == "STATE";
  if (has_keys) is_feature = is_feature && contains(fields.texts("normalize_observation_keys"), key);
  if (!is_feature) fields.refuse("'" + key + "' is not normalised, expected that it is");
  const Normalization form = read_lerobot_normalization(fields.object("norm_map"), type);
  if (!step(name).has("state_file")) {
    step(name).refuse("'state_file' is missing: without statistics the answers would not be in the robot's units");
  }
  const fs::path state_file = step(name).text("state_file");
  if (state_file != state_file.filename()) step(name).mistyped("state_file", "the name of a file beside it");
  const model::SafetensorsFile file(file_.parent_path() / state_file);
  const auto find = [&](const std::string& tensor) {
    return file.entries().contains(tensor) ? std::optional(file.tensor(tensor)) : std::nullopt;
  };
  return {form, read_lerobot_stats(form, file.path().string(), key, size, find)};
}

}  // namespace pi0::policy
