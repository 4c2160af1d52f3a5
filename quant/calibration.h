// Files of activation statistics, as `pi0 calibrate` writes them: of the inputs of every linear of the unquantized
// model, by site, denoise step and channel (input feature). Safetensors, so that other programs can read them too. A
// site has
//   <path>.absmax       [S, In] float32     largest magnitude
//   <path>.mean_square  [S, In] float32
//   <path>.percentiles  [S, P, In] float32  of the magnitudes
//
// Shape letters: S steps of a site, In channels, P percentiles.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "model/matmul_site.h"
#include "model/safetensors.h"
#include "model/write_bytes.h"

namespace pi0::quant {

// How many steps statistics of a site have: those of the action expert and the action head all `num_steps`, others one.
std::int64_t steps_of(const model::MatmulSite& site, std::int64_t num_steps);

// Tells checkpoints with the same shapes apart: a hash of the first row of every linear's weight, as bfloat16, so that
// the precision in which a model was loaded does not matter.
std::string weights_fingerprint(const model::SiteList& sites);

// `meta` has at least num_steps (integer), n_observations (integer), percentiles (numbers) and skip_components (texts),
// and `weights`, a fingerprint for check_weights() to compare; it goes into the file's __metadata__, where what is not
// a text is JSON.
void write_calibration(const model::WriteBytes& write, const std::map<std::string, at::Tensor>& tensors,
                       const nlohmann::ordered_json& meta);

class Calibration {
 public:
  // Reads and checks the whole file. Throws model::CheckpointError, with the file, the tensor, what was found and what
  // was expected, for a file that is damaged, or of another model than that of `sites`: it must have every linear of
  // every component that it does not name as skipped, and no other.
  Calibration(std::filesystem::path file, const model::SiteList& sites);

  // Both throw model::CheckpointError for a site that is not in the file, `percentile` also for a percentile that is
  // not.
  at::Tensor absmax(const std::string& site_path) const;                    // [In] float32, over all steps
  float percentile(const std::string& site_path, double percentile) const;  // the largest of all steps and channels

  // Throws model::CheckpointError if the file's metadata has the fingerprint of other weights than those of `sites`,
  // which must not have been released. A file from elsewhere may have none.
  void check_weights(const model::SiteList& sites) const;

  const nlohmann::json& meta() const { return meta_; }

 private:
  struct Site {
    at::Tensor absmax;               // [In]
    std::vector<float> percentiles;  // in the order of the file's
  };
  void read_meta(const model::SafetensorsFile& file);
  Site read_site(const model::SafetensorsFile& file, const model::MatmulSite& site) const;
  void refuse_others(const model::SafetensorsFile& file) const;
  const Site& site(const std::string& path) const;
  [[noreturn]] void refuse(const std::string& what) const;

  std::filesystem::path path_;
  nlohmann::json meta_ = nlohmann::json::object();
  std::int64_t num_steps_ = 0;
  std::vector<double> percentiles_;
  std::set<std::string> skipped_;  // components
  std::map<std::string, Site> sites_;
};

}  // namespace pi0::quant
