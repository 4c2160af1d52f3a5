// Operations between products: norms, softmax, activations, residual additions and the rotary embedding. Without a hook
// they run fused, in the backend's kernels. With one they run one by one, and the hook may change what goes into and
// comes out of each.
#pragma once

#include <ATen/ATen.h>
#include <c10/util/FunctionRef.h>

#include <cstdint>
#include <span>

#include "model/build_context.h"
#include "model/matmul_site.h"

namespace pi0::model {

// The operation as a function of its inputs: what was computed from a request. Weights of norms, masks and angles are
// no inputs.
using VectorOperation = c10::function_ref<Tensor(std::span<const Tensor> inputs)>;

// Takes over one operation. Calls never overlap.
class VectorHook : public SiteHook {
 public:
  virtual Tensor apply(std::span<const Tensor> inputs, VectorOperation operation) = 0;  // dtype of the operation's
};

class VectorSite : public HookedSite<VectorHook> {
 public:
  // `width` is the last dimension of inputs and result; 0 if it changes.
  VectorSite(const BuildContext& context, std::int64_t width)
      : HookedSite(context.path, SiteKind::vector, width, width, context.backend) {}

  // Call once before each computation: the hook that it must run through. Null: the backend's fused kernels may run.
  VectorHook* begin() const {
    ++uses;
    return hook();
  }

  // For an operation that nothing fuses.
  Tensor operator()(const Tensor& x, VectorOperation operation) const {
    VectorHook* const hook = begin();
    return hook != nullptr ? hook->apply({&x, 1}, operation) : operation({&x, 1});
  }

  mutable std::int64_t uses = 0;  // computations so far, with or without a hook
};

}  // namespace pi0::model
