// torch.nn.Linear: the model's only matmuls with weights. A hook may replace one.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "model/backend.h"
#include "model/build_context.h"
#include "model/matmul_site.h"

namespace pi0::model {

enum class Bias { none, present };

// Replaces the matmul of one linear. One instance per linear; calls never overlap.
class LinearHook : public SiteHook {
 public:
  virtual Tensor linear(const Tensor& x) = 0;  // [..., In] to [..., Out], dtype of x

  // Applies the linears of `hooks`, this one included, to the x that they share. Results are in the same order.
  virtual std::vector<Tensor> linears(std::span<LinearHook* const> hooks, const Tensor& x);
};

class Linear : public HookedSite<LinearHook> {
 public:
  Linear(const BuildContext& context, std::int64_t in, std::int64_t out, Bias bias = Bias::none);

  Tensor operator()(const Tensor& x) const;        // [..., In] to [..., Out]
  at::ScalarType dtype() const { return dtype_; }  // of its inputs and outputs

  // As the backend keeps it: registered as the parameter "weight" [Out, In], or packed as the buffer "packed_weight".
  // Throws std::logic_error once it was released.
  const Tensor& weight() const;

  // The packed weight rounded to the format, from a checkpoint that holds it so; else undefined.
  Tensor stored_codes(formats::Format format) const;

  // Frees the weight: from now on only a hook that has one of its own can compute.
  void release_weight();
  const Tensor& bias() const { return bias_; }  // [Out]; undefined without one

  // For Backend::join(): replaces the parameters by views of the same values.
  void move_parameters(const Tensor& weight, const Tensor& bias);

  void count_flop(const Tensor& x) const { flop += 2 * x.numel() * out_features; }

 private:
  at::ScalarType dtype_;
  Tensor weight_, bias_;
  std::function<Tensor(formats::Format)> stored_codes_;
  bool is_released_ = false;
};

// A vocabulary head: in the checkpoint and in every list of layers, but never called.
class UnusedHead : public MatmulSite {
 public:
  UnusedHead(const BuildContext& context, std::int64_t width, std::int64_t vocab_size);
  SiteHook* any_hook() const override { return nullptr; }
  void remove_hook() override {}
};

// Linears that share their input: the query, key and value projections, or gate_proj and up_proj. Not owned.
class JoinedLinears {
 public:
  explicit JoinedLinears(std::vector<Linear*> linears);

  std::vector<Tensor> operator()(const Tensor& x) const;  // [..., Out] each, in their order; may be strided
  Tensor gated(const Tensor& x) const;                    // GELU (tanh approximation) of the first, times the second

 private:
  std::vector<Tensor> hooked(const Tensor& x) const;
  bool has_hooks() const;

  std::vector<Linear*> linears_;
  const Backend& backend_;
  JoinedWeights joined_;
};

}  // namespace pi0::model
