// Keys and values of one request's prefix, after rotary, one entry per layer. A value type.
#pragma once

#include <ATen/ATen.h>

#include <vector>

namespace pi0::model {

struct LayerKv {
  at::Tensor key;    // [B, KV heads, L, D]
  at::Tensor value;  // as key
};
using KvCache = std::vector<LayerKv>;

}  // namespace pi0::model
