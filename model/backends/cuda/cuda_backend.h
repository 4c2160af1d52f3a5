// Computes layers on NVIDIA GPUs with our own kernels. They are called through tables of functions, so that tests can
// run them on a CPU.
#pragma once

#include <memory>

#include "model/backends/cuda/device_kernels.h"
#include "model/backends/cuda/device_layer_kernels.h"
#include "model/backends/reference/reference_backend.h"

namespace pi0::model {

// Falls back to the reference operations where the kernels do not apply: for sizes that are not multiples of eight, or
// for too many keys.
class CudaBackend : public ReferenceBackend {
 public:
  CudaBackend(const DeviceLayers& layers, const DeviceKernels& rounding) : layers_(layers), rounding_(rounding) {}

  std::string_view name() const override { return "cuda"; }
  bool skips_unread() const override { return true; }
  bool batches_cameras() const override { return true; }
  Tensor linear(const Linear& linear, const Tensor& x) const override;
  JoinedWeights join(std::span<Linear* const> linears) const override;
  std::vector<Tensor> linears(LinearSpan linears, const JoinedWeights& joined, const Tensor& x) const override;
  Tensor gated_linears(LinearSpan linears, const JoinedWeights& joined, const Tensor& x) const override;
  Normed rms_norm(const Residual& in, const Tensor& weight, const Tensor& modulation, double epsilon) const override;
  Normed layer_norm(const Residual& in, const Tensor& weight, const Tensor& bias, double epsilon) const override;
  Tensor gelu(const Tensor& x, const Tensor& factor) const override;
  std::vector<Tensor> rotate(std::span<const Tensor> heads, const RotaryAngles& angles) const override;
  Tensor attention(const AttentionOperands& in) const override;
  std::unique_ptr<Quantizer> quantizer(ErrorSink& sink, std::function<void()> moved) const override;

 private:
  std::vector<Tensor> few_rows(LinearSpan linears, const Tensor& x, bool is_gated) const;
  Normed norm(NormCall call, const Residual& in, double epsilon) const;

  const DeviceLayers& layers_;
  const DeviceKernels& rounding_;
};

}  // namespace pi0::model
