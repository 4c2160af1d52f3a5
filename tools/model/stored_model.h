// What a checkpoint's files say of the model in them, before any weights are read.
#pragma once

#include <string>
#include <vector>

#include "model/checkpoint_folder.h"
#include "model/model_config.h"

namespace pi0::tools {

// architecture.json's sizes; without it, those of config.json's variants (gemma_2b and gemma_300m where it names none)
// with the action size and vocabulary of the tensors. The action horizon and prompt length are no part of the weights:
// they are those of config.json, or 1. Throws model::CheckpointError if the tensors are of no Pi0 or Pi0.5 model.
model::ModelConfig stored_model(const model::CheckpointFolder& folder, const model::CheckpointSource& checkpoint);

// The action horizon in architecture.json or config.json; 0 where neither has it.
std::int64_t stored_horizon(const model::CheckpointFolder& folder);

// config.json's text of `key`, or `otherwise`.
std::string stored_text(const model::CheckpointFolder& folder, const std::string& key, const std::string& otherwise);

}  // namespace pi0::tools
