// Tensors in safetensors files: the inputs of the bare model, without a policy, and results.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <string>

#include "model/pi0.h"

namespace pi0::tools {

struct TensorInputs {
  model::ModelInputs inputs;  // a batch of B
  at::Tensor noise;           // [B, A, N] float32
};

// Reads images uint8 [cameras, B, 224, 224, 3], image_masks [cameras, B], state, tokens, token_mask and
// noise. Throws std::invalid_argument or CheckpointError that names file, tensor, found and expected.
TensorInputs read_tensor_inputs(const std::filesystem::path& path);

// Writes the file whole, or throws and leaves what was there.
void write_tensors(const std::filesystem::path& file, const std::map<std::string, at::Tensor>& tensors);

}  // namespace pi0::tools
