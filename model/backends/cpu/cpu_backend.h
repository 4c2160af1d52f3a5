// Computes layers with the fast CPU kernels of one instruction set.
#pragma once

#include <memory>

#include "model/backends/cpu/gemm.h"
#include "model/backends/reference/reference_backend.h"

namespace pi0::model {

class CpuBackend : public ReferenceBackend {
 public:
  explicit CpuBackend(const GemmKernels& kernels) : kernels_(kernels) {}

  const GemmKernels& kernels() const { return kernels_; }

  std::string_view name() const override { return "cpu"; }
  std::string_view instructions() const override { return name_of(kernels_.set); }
  bool skips_unread() const override { return true; }
  bool batches_cameras() const override { return true; }
  bool packs_weights() const override { return true; }
  Tensor pack(const Tensor& weight) const override { return pack_weight(weight).panels; }
  Tensor first_row(const Linear& linear) const override;
  Tensor linear(const Linear& linear, const Tensor& x) const override;
  std::vector<Tensor> linears(LinearSpan linears, const JoinedWeights& joined, const Tensor& x) const override;
  Tensor gated_linears(LinearSpan linears, const JoinedWeights& joined, const Tensor& x) const override;
  Normed rms_norm(const Residual& in, const Tensor& weight, const Tensor& modulation, double epsilon) const override;
  Tensor gelu(const Tensor& x, const Tensor& factor) const override;
  std::vector<Tensor> rotate(std::span<const Tensor> heads, const RotaryAngles& angles) const override;
  Tensor attention(const AttentionOperands& operands) const override;
  std::unique_ptr<Quantizer> quantizer(ErrorSink& sink, std::function<void()> moved) const override;

 private:
  const GemmKernels& kernels_;
};

std::shared_ptr<const Backend> cpu_backend(InstructionSet set);

// A linear's weight as the CPU backend stores it.
PackedWeight packed_weight_of(const Linear& linear);

}  // namespace pi0::model
