// Where a layer is in the model, from its path. No LibTorch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace pi0::quant {

struct LayerPlace {
  std::optional<std::int64_t> block;  // of the transformer, from 0; none outside its blocks
  std::string matrix;                 // its name in the block, or the last part of the path
};

// "...layers.3.self_attn.q_proj" is matrix q_proj of block 3, "...layers.3.input_layernorm.dense"
// input_layernorm.dense. "...layers.3.mlp.residual" and "time_mlp_in.act" keep what tells them from others.
LayerPlace place_of(const std::string& layer);

}  // namespace pi0::quant
