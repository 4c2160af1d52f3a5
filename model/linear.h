// The model's only matmul with weights: torch.nn.Linear with one hook slot.
#pragma once

#include <string>

#include "model/build_context.h"

namespace pi0::model {

enum class Bias { none, present };

Tensor plain_linear(const LinearOperands& operands);  // xWᵀ + b, [..., Out]

class Linear {
 public:
  Linear(BuildContext& context, const std::string& path, std::int64_t in, std::int64_t out,
         Bias bias = Bias::none);

  Tensor operator()(const Tensor& x) const;  // [..., In] to [..., Out]
  bool is_observed() const { return site_->is_observed(); }
  at::ScalarType dtype() const { return dtype_; }  // of its inputs and outputs

 private:
  MatmulSite* site_;  // owned by the model's SiteList
  at::ScalarType dtype_;
};

}  // namespace pi0::model
