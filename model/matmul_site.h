// Hooks on the model's matmuls. Every linear and every attention is a module derived from MatmulSite; a hook set on it
// replaces its matmul. KV caches and the operations between matmuls (VectorSite) are sites too. The model does not know
// what hooks do. Without a hook the backend computes.
#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "model/execution.h"

namespace pi0::model {

using at::Tensor;

class Backend;

enum class SiteKind { linear, attention, kv_cache, vector };
enum class Component { vision, language, action_expert, action_head, unknown };

std::string_view name_of(SiteKind kind);
std::string_view name_of(Component component);

// The component that a module path belongs to; the first matching rule wins
// (pi0-quant model_patcher.py _COMPONENT_RULES).
Component component_of(std::string_view path);

// What the model needs to know about any hook.
class SiteHook {
 public:
  virtual ~SiteHook() = default;

  // Whether calls have effects beyond their results, such as statistics. If not, the model may skip calls whose results
  // are unused, and cache results that cannot change.
  virtual bool observes() const = 0;

  // Whether the hook can separate the calls that are joined in one (MatmulSite::calls) and can repeat what it observed.
  // If so, the model may join calls and cache results although the hook observes.
  virtual bool observes_joined_calls() const { return false; }

  // From keep_observed() to the end of the request, the hook saves what it observes. repeat_observed() counts that
  // again for each sample of a request, without a call; in the request that it is saved in, for each but the first.
  virtual void keep_observed() {}
  virtual void repeat_observed(std::int64_t /*samples*/) {}
};

class MatmulSite : public torch::nn::Module {
 public:
  MatmulSite(std::string site_path, SiteKind site_kind, std::int64_t in, std::int64_t out, const Backend& site_backend);

  const std::string path;  // of the module, as in the checkpoint; attentions end in ".sdpa", caches in ".kv_cache"
  const Component component;
  const SiteKind kind;
  const std::int64_t in_features;   // head size for attentions and caches; of vector operations 0 if it changes
  const std::int64_t out_features;  // likewise
  const Backend& backend;           // the model's

  mutable std::int64_t flop = 0;   // multiplications and additions of all calls so far
  mutable std::int64_t calls = 1;  // reference calls that the next call joins, one after the other along the batch

  virtual SiteHook* any_hook() const = 0;  // null: none
  virtual void remove_hook() = 0;

  bool is_observed() const { return any_hook() != nullptr && any_hook()->observes(); }
  bool needs_each_call() const { return is_observed() && !any_hook()->observes_joined_calls(); }

  void pretty_print(std::ostream& stream) const override;
};

// A site that a hook of that type may take over.
template <class Hook>
class HookedSite : public MatmulSite {
 public:
  using MatmulSite::MatmulSite;

  void set_hook(Hook* hook) { hook_ = hook; }  // not owned
  Hook* hook() const { return hook_; }
  SiteHook* any_hook() const override { return hook_; }
  void remove_hook() override { hook_ = nullptr; }

 private:
  Hook* hook_ = nullptr;
};

// The sites of one model, in the order of its modules.
class SiteList {
 public:
  using Sites = std::vector<std::reference_wrapper<MatmulSite>>;

  // Walks the modules of `root`, which must outlive the list.
  explicit SiteList(const torch::nn::Module& root);

  const Sites& all() const { return sites_; }            // linears and attentions
  const Sites& kv_caches() const { return kv_caches_; }  // a layer's each
  const Sites& vectors() const { return vectors_; }      // VectorSites
  const Sites& of_all_kinds() const { return of_all_kinds_; }
  const Backend& backend() const { return sites_.front().get().backend; }  // the same for all sites

  // Call after setting or removing hooks: the model discards results that it cached under the old ones.
  void hooks_changed() { ++hook_changes_; }
  std::int64_t hook_changes() const { return hook_changes_; }

 private:
  Sites of_all_kinds_, sites_, kv_caches_, vectors_;
  std::int64_t hook_changes_ = 0;
};

}  // namespace pi0::model
