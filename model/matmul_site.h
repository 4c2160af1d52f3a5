// The seam between the model and whoever wants to change its matmuls: every linear and every
// attention of the model is a MatmulSite, and a hook on a site takes its matmul over.
// The model owns sites and knows nothing of what hooks do; no hook means full precision.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/execution.h"

namespace pi0::model {

using at::Tensor;

class Backend;
class PrefixPack;

struct LinearOperands {
  Tensor x;       // [..., In]
  Tensor weight;  // [Out, In]
  Tensor bias;    // [Out], undefined when the layer has none
};

enum class AttentionForm {
  eager,  // softmax(QK^T + mask)V step by step: Gemma
  fused   // scaled_dot_product_attention: SigLIP
};

struct AttentionOperands {
  AttentionForm form;
  Tensor query;         // [B, H, L, D], after rotary
  Tensor prefix_key;    // [B, KV heads, P, D], cached; undefined without a prefix
  Tensor prefix_value;  // as prefix_key
  Tensor key;           // [B, KV heads, L, D], after rotary
  Tensor value;         // as key
  Tensor mask;          // [B, 1, L, P + L] float32, added to the scores; undefined for SigLIP
  double scale;
  PrefixPack* prefix_pack = nullptr;  // where fast kernels keep the prefix packed between calls
};

// Takes over one site's matmul. One instance per site; calls never overlap.
class MatmulHook {
 public:
  virtual ~MatmulHook() = default;
  virtual Tensor linear(const Tensor& x) = 0;  // [..., Out], dtype of x
  // The linears of sites that share x, whose hooks these are, this one first; in their order.
  virtual std::vector<Tensor> linears(std::span<MatmulHook* const> hooks, const Tensor& x);
  virtual Tensor attention(const AttentionOperands& operands) = 0;  // [B, H, L, D], dtype of query

  // Whether calls from now on have effects beyond their results, as statistics are; where not, the
  // model may leave out what it does not need and keep results that cannot change.
  virtual bool observes() const = 0;

  // Whether the hook observes each of a site's `calls` by itself, and whether it can repeat what it observed: then the
  // model may join calls, and keep results that cannot change all the same.
  virtual bool observes_joined_calls() const { return false; }

  // What the site observes until the request ends is what repeat_observed() observes again, in a later request of
  // `samples` samples, without a call.
  virtual void keep_observed() {}
  virtual void repeat_observed(std::int64_t /*samples*/) {}
};

enum class SiteKind { linear, attention };
enum class Component { vision, language, action_expert, action_head, unknown };

std::string_view name_of(SiteKind kind);
std::string_view name_of(Component component);

// The part of the policy that a module path belongs to; the first rule that matches wins
// (pi0-quant model_patcher.py _COMPONENT_RULES).
Component component_of(std::string_view path);

struct MatmulSite {
  std::string path;  // of the module, as in the checkpoint; attention sites end in ".sdpa"
  Component component;
  SiteKind kind;
  std::int64_t in_features;           // head size for attention
  std::int64_t out_features;          // head size for attention
  const Backend* backend;             // the model's, which computes what no hook takes over
  Tensor weight = {};                 // [Out, In]; undefined for attention and for layers never called
  PackedWeight packed = {};           // the weight instead, where the model runs fast kernels
  Tensor bias = {};                   // [Out]; undefined without one
  const GemmKernels* gemm = nullptr;  // of a CPU's fast kernels; null: other ones
  MatmulHook* hook = nullptr;         // not owned
  mutable std::int64_t flop = 0;      // multiplications and additions done here, for whoever counts
  mutable std::int64_t calls = 1;     // that the next ones stand for, one after the other along the batch

  bool is_observed() const { return hook != nullptr && hook->observes(); }
  bool needs_each_call() const { return is_observed() && !hook->observes_joined_calls(); }
};

// The sites of one model in the order of its modules. Addresses stay valid while the list lives.
class SiteList {
 public:
  explicit SiteList(Execution execution = {});
  const Execution& execution() const { return execution_; }  // of their model
  const Backend& backend() const { return *backend_; }       // likewise

  MatmulSite& add(std::string path, SiteKind kind, std::int64_t in, std::int64_t out);
  const std::deque<MatmulSite>& all() const { return sites_; }
  std::deque<MatmulSite>& all() { return sites_; }

  // Whoever sets or removes hooks says so: what the model kept of results under others is void.
  void hooks_changed() { ++hook_changes_; }
  std::int64_t hook_changes() const { return hook_changes_; }

 private:
  Execution execution_;
  std::shared_ptr<const Backend> backend_;
  std::deque<MatmulSite> sites_;
  std::int64_t hook_changes_ = 0;
};

}  // namespace pi0::model
