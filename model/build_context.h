// What a module needs while it is built: where its parameters come from, where they go, and the list
// its sites are entered in.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "model/matmul_site.h"
#include "model/weight_source.h"

namespace pi0::model {

struct BuildContext {
  WeightSource& weights;
  SiteList& sites;
  Precision precision;
  const Execution& execution;

  // For a caller that packs it at once.
  Tensor lent(const std::string& name, at::IntArrayRef shape) {
    return weights.lend(name, shape, storage_of(name, precision));
  }

  Tensor parameter(const std::string& name, at::IntArrayRef shape) {
    const Tensor loaded = weights.load(name, shape, storage_of(name, precision));
    return loaded.is_meta() ? loaded : loaded.to(execution.device);
  }
};

}  // namespace pi0::model
