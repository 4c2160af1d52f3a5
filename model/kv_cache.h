// The KV cache: keys (after rotary embedding) and values of one request's prefix, one entry per layer.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <vector>

namespace pi0::model {

// Keys and values in the layout that a backend's attention reads.
struct PackedKv {
  virtual ~PackedKv() = default;
};

// All denoise steps of a request read the same prefix, so what the backend or a hook derives from it is computed once
// and cached here. Each entry has a single reader: the action expert's layer of the same index.
struct LayerKv {
  at::Tensor key;                                       // [B, KV heads, L, D]
  at::Tensor value;                                     // as key
  mutable std::shared_ptr<const PackedKv> packed = {};  // by the reader's backend
  mutable std::shared_ptr<const LayerKv> rounded = {};  // by the reader's hook, to its input format
};
using KvCache = std::vector<LayerKv>;

}  // namespace pi0::model
