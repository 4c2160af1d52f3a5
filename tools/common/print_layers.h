#pragma once

#include "model/model_config.h"

namespace pi0::tools {

struct LayerListing {
  bool all = false;      // KV caches and vector operations too
  bool as_json = false;  // a list, else one line per site
};

// In the order of the model's modules.
void print_layers(const model::ModelConfig& config, const LayerListing& listing);

}  // namespace pi0::tools
