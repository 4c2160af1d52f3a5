// What a model's layers are computed with: the reference's operations, a CPU's fast kernels, or a device's kernels. A
// model gets one when it is made. Each backend is one folder below backends/.
//
// Shape letters as in pi0.h; rows of results may lie apart in memory where that is said.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "model/quantizer.h"
#include "model/rope.h"

namespace pi0::model {

// A residual stream: x + update · gate. The norm that reads it adds it up.
struct Residual {
  Tensor x;            // [B, L, W]
  Tensor update = {};  // [B, L, W]; undefined: x alone
  Tensor gate = {};    // [B or 1, 1, W] of any dtype, rounded to that of x; undefined: one
};

struct Normed {
  Tensor sum;  // the residual stream, [B, L, W]
  Tensor x;    // its norm, as is `sum`
};

// What a backend keeps of linears that share their input.
struct JoinedWeights {
  Tensor weight = {};  // [sum of Out, In]; undefined: each linear has its own
  Tensor bias = {};    // [sum of Out]
};

using LinearSpan = std::span<const Linear* const>;

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;                    // reference, cpu, cuda
  virtual std::string_view instructions() const { return ""; }  // of a CPU's fast kernels

  // Whether calls that nobody reads are left out and results that cannot change are kept. The reference does neither.
  virtual bool skips_unread() const { return true; }

  // Whether the cameras of a request are to be one batch.
  virtual bool batches_cameras() const { return false; }

  // Whether weights are kept in a layout of the backend's own, which pack() makes.
  virtual bool packs_weights() const { return false; }
  virtual Tensor pack(const Tensor& weight) const { return weight; }

  // xWᵀ + b, [..., In] to [..., Out].
  virtual Tensor linear(const Linear& linear, const Tensor& x) const = 0;

  // Lays the weights of linears together if that helps; the linears then hold parts of one tensor.
  virtual JoinedWeights join(std::span<Linear* const> linears) const;

  // The linears of x, in their order. Rows may lie apart.
  virtual std::vector<Tensor> linears(LinearSpan linears, const JoinedWeights& joined, const Tensor& x) const;

  // GELU (tanh) of the first linear of x, times the second.
  virtual Tensor gated_linears(LinearSpan linears, const JoinedWeights& joined, const Tensor& x) const;

  // Gemma's RMS norm: the weight [W] is stored less one. Or the adaptive one: scale less one, shift
  // and gate of a modulation [B or 1, 3W].
  virtual Normed rms_norm(const Residual& x, const Tensor& weight, const Tensor& modulation, double epsilon) const = 0;

  virtual Normed layer_norm(const Residual& x, const Tensor& weight, const Tensor& bias, double epsilon) const;

  // GELU (tanh) of x [..., W], times `factor` unless that is undefined. Their rows may lie apart.
  virtual Tensor gelu(const Tensor& x, const Tensor& factor) const = 0;

  // Rotary embedding of queries or keys [B, H, L, D] of any strides.
  virtual std::vector<Tensor> rotate(std::span<const Tensor> heads, const RotaryAngles& angles) const = 0;

  // softmax(QKᵀ)V, [B, H, L, D].
  virtual Tensor attention(const AttentionOperands& operands) const = 0;

  // For the hooks of one attachment. `sink` outlives it. `moved` is called when what recorded work refers to has moved,
  // which makes recordings void.
  virtual std::unique_ptr<Quantizer> quantizer(ErrorSink& sink, std::function<void()> moved) const = 0;
};

}  // namespace pi0::model
