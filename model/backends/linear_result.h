// Memory for the result of a linear.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace pi0::model {

// Uninitialized, [..., Out] for x [..., In], of x's dtype and device.
inline at::Tensor empty_result(const at::Tensor& x, std::int64_t out_features) {
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = out_features;
  return at::empty(shape, x.options());
}

}  // namespace pi0::model
