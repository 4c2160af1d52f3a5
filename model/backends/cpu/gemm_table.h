// The table of an instruction set's loops: what differs among the sets is given, the rest are the shared headers'
// loops.
#pragma once

#include "model/backends/cpu/gemm_coded.h"
#include "model/backends/cpu/gemm_ordered.h"
#include "model/backends/cpu/gemm_tile.h"
#include "model/backends/cpu/layer_loops.h"

namespace pi0::model {
namespace {

GemmKernels kernel_table(InstructionSet set, decltype(GemmKernels::widen) widen,
                         decltype(GemmKernels::widen_elements) widen_elements, decltype(GemmKernels::multiply) multiply,
                         decltype(GemmKernels::multiply_in_order) multiply_in_order, bool has_pairs) {
  return {.set = set,
          .widen = widen,
          .widen_elements = widen_elements,
          .scale_elements = scale_elements,
          .multiply = multiply,
          .multiply_in_order = multiply_in_order,
          .add = add,
          .add_scaled = add_scaled,
          .add_terms = add_terms,
          .store = store,
          .widen_bfloat16 = widen_bfloat16,
          .narrow_to_bfloat16 = narrow_to_bfloat16,
          .has_pairs = has_pairs,
          .layers = layer_kernels};
}

}  // namespace
}  // namespace pi0::model
