// The model's only matmul with weights: torch.nn.Linear with one hook slot.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "model/backend.h"
#include "model/build_context.h"

namespace pi0::model {

enum class Bias { none, present };

Tensor plain_linear(const LinearOperands& operands);  // xWᵀ + b, [..., Out]

class Linear {
 public:
  Linear(BuildContext& context, const std::string& path, std::int64_t in, std::int64_t out, Bias bias = Bias::none);

  Tensor operator()(const Tensor& x) const;  // [..., In] to [..., Out]
  bool is_observed() const { return site_->is_observed(); }
  at::ScalarType dtype() const { return dtype_; }  // of its inputs and outputs

 private:
  friend class JoinedLinears;

  MatmulSite* site_;  // owned by the model's SiteList
  at::ScalarType dtype_;
};

// Linears that share their input: queries, keys and values; gate and up.
class JoinedLinears {
 public:
  explicit JoinedLinears(std::initializer_list<const Linear*> linears);

  std::vector<Tensor> operator()(const Tensor& x) const;  // [..., Out] each, in their order; rows may lie apart
  Tensor gated(const Tensor& x) const;                    // GELU (tanh) of the first, times the second

 private:
  std::size_t hook_count() const;
  std::vector<Tensor> hooked(const Tensor& x) const;

  std::vector<MatmulSite*> sites_;
  JoinedSites joined_;
};

}  // namespace pi0::model
