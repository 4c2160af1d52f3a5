// What a model's layers are computed with. There is one implementation for each way to run: the
// reference's operations, a CPU's fast kernels, a device's kernels. A model chooses one when it is
// made.
//
// Shape letters as in pi0.h; rows of results may lie apart in memory where that is said.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "model/execution.h"
#include "model/rope.h"

namespace pi0::model {

struct AttentionOperands;
struct MatmulSite;

// A residual stream: x + update · gate. Whoever norms it adds it up.
struct Residual {
  Tensor x;            // [B, L, W]
  Tensor update = {};  // [B, L, W]; undefined: x alone
  Tensor gate = {};    // [B or 1, 1, W] of any dtype, rounded to that of x; undefined: one
};

struct Normed {
  Tensor sum;  // the residual stream, [B, L, W]
  Tensor x;    // its norm, as is `sum`
};

// Linears that share their input. Their weights may lie one after the other in one tensor.
struct JoinedSites {
  std::vector<const MatmulSite*> sites;
  Tensor weight = {};  // [sum of Out, In]; undefined: each has its own
  Tensor bias = {};    // [sum of Out]
};

class Backend {
 public:
  virtual ~Backend() = default;

  // xWᵀ + b of one site, [..., In] to [..., Out].
  virtual Tensor linear(const MatmulSite& site, const Tensor& x) const = 0;

  // Lays the weights of sites together if that helps; the sites then hold parts of one tensor.
  virtual JoinedSites join(std::span<MatmulSite* const> sites) const;

  // The linears of x, in their order. Rows may lie apart.
  virtual std::vector<Tensor> linears(const JoinedSites& joined, const Tensor& x) const;

  // GELU (tanh) of the first linear of x, times the second.
  virtual Tensor gated_linears(const JoinedSites& joined, const Tensor& x) const;

  // Gemma's RMS norm: the weight [W] is stored less one. Or the adaptive one: scale less one, shift
  // and gate of a modulation [B or 1, 3W].
  virtual Normed rms_norm(const Residual& x, const Tensor& weight, const Tensor& modulation, double epsilon) const = 0;

  virtual Normed layer_norm(const Residual& x, const Tensor& weight, const Tensor& bias, double epsilon) const;

  // GELU (tanh) of x [..., W], times `factor` unless that is undefined. Their rows may lie apart.
  virtual Tensor gelu(const Tensor& x, const Tensor& factor) const = 0;

  // Rotary embedding of queries and keys [B, H, L, D] of any strides.
  virtual std::pair<Tensor, Tensor> rotate(const Tensor& query, const Tensor& key,
                                           const RotaryAngles& angles) const = 0;

  // softmax(QKᵀ)V, [B, H, L, D].
  virtual Tensor attention(const AttentionOperands& operands) const = 0;

  // Whether the cameras of a request should be one batch.
  virtual bool batches_cameras() const { return false; }
};

std::shared_ptr<const Backend> make_backend(const Execution& execution);

// With a device's kernels, also of tensors on the CPU where those work there.
std::shared_ptr<const Backend> make_device_backend(const DeviceLayers& layers);

}  // namespace pi0::model
