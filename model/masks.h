// Prefix-LM masks and positions. Reference: pi0_pytorch.py make_att_2d_masks.
#pragma once

#include <ATen/ATen.h>

namespace pi0::model {

using at::Tensor;

// Who may attend to whom, [B, L, L] bool: tokens of a block attend to that block and all before it.
// `padding` [B, L] bool is true for real tokens; `block_starts` [L] is 1 where a block begins.
Tensor block_mask(const Tensor& padding, const Tensor& block_starts);

// The same as numbers to add to scores: 0 where allowed, else the float32 that openpi uses. [B, 1, L, S].
Tensor additive_mask(const Tensor& allowed);

}  // namespace pi0::model
