// The model's inputs: one batch of observations.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

#include "model/continuation.h"
#include "model/model_config.h"

namespace pi0::model {

using at::Tensor;

// The fields of openpi's Observation, on any device. Shape letters as in pi0.h, T prompt positions.
struct ModelInputs {
  std::vector<Tensor> images;       // per camera [B, 3, 224, 224] float32 in [-1, 1], or pixels [B, 224, 224, 3] uint8
  std::vector<Tensor> image_masks;  // per camera [B] bool
  Tensor tokens;                    // [B, T] integer, 0 where padded
  Tensor token_mask;                // [B, T] bool
  Tensor state;                     // [B, N] floating, normalised and padded
  Continuation continuation = {};   // of the previous chunk; undefined: the chunk stands alone
};

// Concatenates samples with the same number of images to one batch. A single sample is returned as it is. Samples that
// continue nothing are not guided, whatever the others are.
ModelInputs joined(std::span<const ModelInputs> samples);

bool is_pixels(const Tensor& image);

// openpi's image conversion: [B, H, W, 3] uint8 to [B, 3, H, W] float32 in [-1, 1]. The result keeps the channels-last
// memory format of its source, which selects the convolution kernel that the reference runs.
Tensor image_to_input(const Tensor& pixels);

// One past the last prompt position that any sample uses; at least one.
std::int64_t used_positions(const Tensor& token_mask);

// Throws std::invalid_argument if a tensor has a wrong shape or dtype, or if a token is out of range.
// `noise` [B, A, N] float32.
void check_inputs(const ModelInputs& inputs, const Tensor& noise, const ModelConfig& config);

}  // namespace pi0::model
