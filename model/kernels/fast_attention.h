// The fast softmax(QKᵀ)V of Gemma: scores of a block of rows stay in cache. The reference's function,
// roundings to bfloat16 included, but for the order of sums and the last bits of exp.
#pragma once

#include <vector>

#include "model/kernels/gemm.h"
#include "model/kernels/scratch.h"

namespace pi0::model {

struct AttentionOperands;

// A weight as it is multiplied: [panels][steps][32] lanes. Codes that are lanes already are shared.
struct Lanes {
  at::Tensor shared;
  Scratch<std::uint32_t> widened;
  std::int64_t panels = 0;
  std::int64_t steps = 0;

  const std::uint32_t* panel(std::int64_t index) const;
};

// Keys and values [B, G, P, D] as the kernels read them.
struct PackedKv {
  struct Group {
    Lanes keys;    // of [P, D]
    Lanes values;  // of [D, P]
  };
  std::vector<Group> groups;  // B · G
  std::int64_t count = 0;     // P
};

// The packed prefix of one attention, which all denoise steps of a request share.
class PrefixPack {
 public:
  const PackedKv& get(const GemmKernels& kernels, Lane lane, const at::Tensor& key, const at::Tensor& value);

 private:
  at::Tensor key_;  // held, so that its identity cannot pass to another tensor
  Lane lane_ = Lane::float32;
  PackedKv packed_;
};

// AttentionForm::eager on a CPU. Result [B, H, L, D] with the strides of [B, L, H, D], dtype of the query.
at::Tensor fast_attention(const GemmKernels& kernels, const AttentionOperands& operands);

}  // namespace pi0::model
