// The KV cache: keys (after rotary embedding) and values of one request's prefix, one entry per layer.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <vector>

#include "model/build_context.h"
#include "model/matmul_site.h"

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

// Changes what is kept of one layer's prefix. Calls never overlap.
class KvCacheHook : public SiteHook {
 public:
  virtual LayerKv keep(const LayerKv& layer) = 0;
};

// Where the denoise steps' keys and values of one layer's prefix are kept. Registered as "kv_cache" in its self_attn
// module. The prefix's own attention does not read it.
class KvCacheSite : public HookedSite<KvCacheHook> {
 public:
  KvCacheSite(const BuildContext& context, std::int64_t head_dim)
      : HookedSite(context.path, SiteKind::kv_cache, head_dim, head_dim, context.backend) {}
  LayerKv operator()(const LayerKv& layer) const { return hook() != nullptr ? hook()->keep(layer) : layer; }
};

}  // namespace pi0::model
