// Statistics of normalisation that lie beside a checkpoint, in openpi's format.
// Reference: openpi src/openpi/shared/normalize.py. Says nothing of how they are applied.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace pi0::policy {

// Names the file, the key, what was found and what was expected.
class NormStatsError : public std::runtime_error {
  using runtime_error::runtime_error;
};

// One value per dimension, NaN where the file has a number that is not finite; mean and std are equally long, q01 and
// q99 as well.
struct FieldStats {
  std::vector<double> mean;
  std::vector<double> std;
  std::vector<double> q01;  // 1st and 99th percentile; empty where the file has none
  std::vector<double> q99;
};

struct NormStats {
  FieldStats state;
  FieldStats actions;
  std::string source;  // the file, for messages
};

// `checkpoint_dir`/assets/`asset_id`/norm_stats.json.
std::filesystem::path norm_stats_file(const std::filesystem::path& checkpoint_dir, const std::string& asset_id);

// Throws NormStatsError when the file is absent, is not JSON, or a key is missing, unknown,
// mistyped or not as long as its partner.
NormStats read_norm_stats(const std::filesystem::path& file);

}  // namespace pi0::policy
