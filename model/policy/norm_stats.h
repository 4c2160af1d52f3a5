// Reads the normalisation statistics of a checkpoint, in openpi's format.
// Reference: openpi src/openpi/shared/normalize.py. normalizer.h applies them.
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

// One value per dimension, NaN where the file has a number that is not finite; mean and std have the same length, and
// so have q01 and q99.
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

// The asset ids whose statistics lie in `checkpoint_dir`/assets, sorted. An id may have slashes.
std::vector<std::string> asset_ids(const std::filesystem::path& checkpoint_dir);

// Throws NormStatsError if the file is absent or not JSON, if a key is missing, unknown or mistyped, or if lengths
// differ.
NormStats read_norm_stats(const std::filesystem::path& file);

// A file's text that read_norm_stats() reads as `stats`, all of whose values are finite. Where they have percentiles
// only, mean and standard deviation are not numbers.
std::string norm_stats_json(const NormStats& stats);

}  // namespace pi0::policy
