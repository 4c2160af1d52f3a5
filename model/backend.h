// Computes a model's layers: with the reference operations, with fast CPU kernels, or with GPU kernels. A model is
// given its backend when it is built. Each backend has a folder in backends/.
//
// Shape letters as in pi0.h.
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
#include "model/vector_site.h"

namespace pi0::model {

// A residual stream that is not added up yet: x + update · gate. The next norm adds it.
struct Residual {
  Tensor x;                        // [B, L, W]
  Tensor update = {};              // [B, L, W]; undefined: x alone
  Tensor gate = {};                // [B or 1, 1, W] of any dtype, cast to that of x; undefined: 1
  VectorHook* addition = nullptr;  // that the addition must run through; null: none
};

struct Normed {
  Tensor sum;  // the residual stream, [B, L, W]
  Tensor x;    // the norm of `sum`, [B, L, W]
};

// The parameters of linears that share their input, concatenated along Out.
struct JoinedWeights {
  Tensor weight = {};  // [sum of Out, In]; undefined: the linears keep their own
  Tensor bias = {};    // [sum of Out]
};

using LinearSpan = std::span<const Linear* const>;

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;                    // reference, cpu, cuda
  virtual std::string_view instructions() const { return ""; }  // the instruction set of fast CPU kernels

  // Whether computations with unused results are skipped and results that cannot change are cached. The reference does
  // neither.
  virtual bool skips_unread() const { return true; }

  // Whether the cameras of a request run as one batch.
  virtual bool batches_cameras() const { return false; }

  // Whether weights are stored in the backend's own layout, which pack() makes.
  virtual bool packs_weights() const { return false; }
  virtual Tensor pack(const Tensor& weight) const { return weight; }

  // The weights of a linear's first output, [In].
  virtual Tensor first_row(const Linear& linear) const;

  // xWᵀ + b, [..., In] to [..., Out].
  virtual Tensor linear(const Linear& linear, const Tensor& x) const = 0;

  // Concatenates the linears' parameters if the backend benefits; the linears then hold views of one tensor.
  virtual JoinedWeights join(std::span<Linear* const> linears) const;

  // Applies each linear to x. Results are in the linears' order and may be strided.
  virtual std::vector<Tensor> linears(LinearSpan linears, const JoinedWeights& joined, const Tensor& x) const;

  // GELU (tanh approximation) of the first linear's output, times the second's.
  virtual Tensor gated_linears(LinearSpan linears, const JoinedWeights& joined, const Tensor& x) const;

  // Gemma's RMS norm. Plain: the factor is 1 + weight [W]. Adaptive: `modulation` [B or 1, 3W] holds scale, shift and
  // gate; the factor is 1 + scale, and the gate is not applied here. The other one of the two arguments is undefined.
  virtual Normed rms_norm(const Residual& x, const Tensor& weight, const Tensor& modulation, double epsilon) const = 0;

  virtual Normed layer_norm(const Residual& x, const Tensor& weight, const Tensor& bias, double epsilon) const;

  // GELU (tanh approximation) of x [..., W], times `factor` unless that is undefined. Both may be strided.
  virtual Tensor gelu(const Tensor& x, const Tensor& factor) const = 0;

  // Applies the rotary embedding to queries or keys [B, H, L, D] of any strides.
  virtual std::vector<Tensor> rotate(std::span<const Tensor> heads, const RotaryAngles& angles) const = 0;

  // softmax(QKᵀ + mask)V, [B, H, L, D]; may be strided. A hooked softmax takes the scaled scores without the mask.
  virtual Tensor attention(const AttentionOperands& operands) const = 0;

  // For the hooks of one attachment. `sink` must outlive it. `moved` is called when memory that recorded work refers to
  // has moved: recordings must then be discarded.
  virtual std::unique_ptr<Quantizer> quantizer(ErrorSink& sink, std::function<void()> moved) const = 0;
};

}  // namespace pi0::model
