#pragma once

#include "model/model_config.h"

namespace pi0::tools {

// One line per site in the order of the model's modules, or a JSON list.
void print_layers(const model::ModelConfig& config, bool as_json);

}  // namespace pi0::tools
