// What a calibration says about outlier channels, as text.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <string>

#include "model/matmul_site.h"

namespace pi0::tools {

// Two tables: by component, and the sites with the channel that stands out most. A channel stands out by its absolute
// maximum over all steps, as a multiple of the median channel's of its site, without channels that are always zero.
// Sites that share their input are listed once. `tensors` as quant/calibration.h names them.
std::string calibration_summary(const model::SiteList& sites, const std::map<std::string, at::Tensor>& tensors);

}  // namespace pi0::tools
