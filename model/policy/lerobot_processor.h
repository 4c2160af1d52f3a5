// One of the two processors beside a LeRobot policy's weights, and the statistics; part of lerobot_folder.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/json_fields.h"
#include "model/policy/norm_stats.h"
#include "model/policy/normalizer.h"

namespace pi0::policy {

// The normalization of states ("STATE") or actions ("ACTION") in a map of them. Throws model::JsonFileError.
Normalization read_lerobot_normalization(model::JsonFields map, const std::string& type);

// The statistics that `form` needs of a feature of `size` numbers. `find` gives the tensor of a name ("PREFIX.mean"),
// or none; `source` names the file in messages. Throws NormStatsError.
FieldStats read_lerobot_stats(Normalization form, const std::string& source, const std::string& prefix,
                              std::int64_t size,
                              const std::function<std::optional<at::Tensor>(const std::string&)>& find);

// What one of the policy's two normalizers says of states or actions.
struct LeRobotNormalized {
  Normalization form;
  FieldStats stats;
};

// policy_preprocessor.json or policy_postprocessor.json. Every function throws model::JsonFileError; normalized also
// NormStatsError.
class LeRobotProcessor {
 public:
  // `known` are the steps that LeRobot's policies have. Other steps, or another order, would be another function.
  LeRobotProcessor(std::filesystem::path file, const std::vector<std::string>& known);
  LeRobotProcessor(const LeRobotProcessor&) = delete;
  LeRobotProcessor& operator=(const LeRobotProcessor&) = delete;

  bool has(const std::string& name) const;
  model::JsonFields& step(const std::string& name);  // throws when it is missing
  model::JsonFields config(const std::string& name);
  [[noreturn]] void refuse(const std::string& what) const;

  // What a normalizer step does to the feature `key`, which has `size` numbers.
  LeRobotNormalized normalized(const std::string& name, const std::string& type, const std::string& key,
                               std::int64_t size);

 private:
  std::filesystem::path file_;
  model::Json json_;
  std::vector<std::pair<std::string, model::JsonFields>> steps_;
};

}  // namespace pi0::policy
