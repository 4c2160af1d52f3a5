// Prefix-LM attention masks. Reference: pi0_pytorch.py make_att_2d_masks, _prepare_attention_masks_4d.
#pragma once

#include <ATen/ATen.h>

namespace pi0::model {

using at::Tensor;

// [B, L, L] bool, true at [b, i, j] if token i may attend to token j: tokens attend to their own block and all earlier
// ones. `pad_mask` [B, L] bool is true for real tokens; `block_starts` [L] is 1 where a block begins.
Tensor block_mask(const Tensor& pad_mask, const Tensor& block_starts);

// The mask to add to attention scores, [B, 1, L, S] float32: 0 where allowed, else openpi's -2.38e38.
Tensor additive_mask(const Tensor& allowed);

}  // namespace pi0::model
