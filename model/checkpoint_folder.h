// What lies at the place that a user names as a checkpoint: its layout, and where its weights and its other files are.
// Reads names and config.json only, no weights.
// Reference: openpi's src/openpi/training/checkpoints.py and examples/convert_jax_model_to_pytorch.py, and LeRobot's
// pretrained_model folders.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "model/checkpoint.h"
#include "model/json_fields.h"
#include "model/weight_source.h"

namespace pi0::model {

enum class Layout {
  openpi,  // model.safetensors, or its shards, with openpi's PyTorch names
  jax,     // params/, written by orbax
  lerobot  // model.safetensors with a config.json that names LeRobot's policy type
};
std::string name_of(Layout layout);  // for people: "openpi PyTorch", "openpi JAX", "LeRobot"

struct CheckpointFolder {
  Layout layout;
  std::filesystem::path root;     // holds assets/ and, where there are any, config.json and the tokenizer
  std::filesystem::path weights;  // the folder of model.safetensors, or that of the JAX parameters
  Json config;                    // of config.json; null without one
};

// `place` is such a folder, its params/ or model.safetensors, or a folder whose only checkpoint is pretrained_model/.
// Throws CheckpointError for anything else. The message says what was found, such as a folder of training steps, an
// address, the optimizer's state or adapters, and what to give instead.
CheckpointFolder find_checkpoint(const std::filesystem::path& place);

// Throws CheckpointError as the reader of the layout does.
std::unique_ptr<CheckpointSource> open_checkpoint(const CheckpointFolder& folder, LoadProgress progress = {});

// What the tensors' names and shapes tell without reading any values; empty where those tensors are not there.
struct StoredSizes {
  std::optional<bool> pi05;
  std::optional<std::int64_t> action_dim;
  std::optional<std::int64_t> vocab_size;
  std::optional<std::int64_t> paligemma_width;
};
StoredSizes stored_sizes(const CheckpointSource& checkpoint);

}  // namespace pi0::model
