// Keys and values of one request's prefix, after rotary embedding, one entry per layer.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <vector>

namespace pi0::model {

// Keys and values in the layout that a backend's attention reads.
struct PackedKv {
  virtual ~PackedKv() = default;
};

// All denoise steps of a request read the same prefix. What the backend or a hook derives from it is derived once and
// kept with it; each entry has one reader, the action expert's layer of the same index.
struct LayerKv {
  at::Tensor key;                                       // [B, KV heads, L, D]
  at::Tensor value;                                     // as key
  mutable std::shared_ptr<const PackedKv> packed = {};  // by the backend
  mutable std::shared_ptr<const LayerKv> rounded = {};  // to the input format of the reader's hook
};
using KvCache = std::vector<LayerKv>;

}  // namespace pi0::model
