// The hook of a linear in a model with fast kernels: rounding and error sums happen on strips of the
// result while they are in cache. The same function as QuantHook, but for the order of sums.
#pragma once

#include <optional>

#include "model/kernels/gemm.h"
#include "quant/quant_hook.h"

namespace pi0::quant {

// The last inputs that were rounded and packed: layers that share one (q, k, v; gate, up) share its
// rounding.
class PackedInputs {
 public:
  struct Entry {
    model::PackedInput input;
    bool overflowed = false;
  };
  // `x` rounded to `format`, in `lane`; the time goes to `clock`.
  const Entry& get(const model::GemmKernels& gemm, const RoundingKernels& rounding, const model::Tensor& x,
                   Format format, model::Lane lane, HookClock& clock);
  void clear() { kept_.clear(); }

 private:
  struct Kept {
    model::Tensor x;  // held, so that its identity cannot pass to another tensor
    Format format;
    model::Lane lane;
    Entry entry;
  };
  std::vector<Kept> kept_;  // all of one x
};

class FastLinearHook : public model::MatmulHook {
 public:
  // As QuantHook. `inputs` is shared by the hooks of one attachment.
  FastLinearHook(model::MatmulSite& site, FormatPair formats, const HookContext& context, std::size_t entry,
                 const RoundingKernels& rounding, PackedInputs& inputs);

  model::Tensor linear(const model::Tensor& x) override;
  model::Tensor attention(const model::AttentionOperands& operands) override;
  bool observes() const override { return context_.measured(); }

 private:
  model::Lane lane_of(at::ScalarType x) const;

  model::MatmulSite& site_;
  const FormatPair formats_;
  const HookContext& context_;
  const std::size_t entry_;  // in the book
  const RoundingKernels& rounding_;
  PackedInputs& inputs_;
  OverflowNote overflow_;
  model::PackedWeight weight_;  // rounded; the site's own where that changes nothing
  bool weight_is_exact_ = false;
  model::Tensor terms_;  // rounded bias, padded
  model::Tensor exact_terms_;
};

}  // namespace pi0::quant
