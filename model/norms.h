// Gemma's RMS norm, plain or adaptive, and SigLIP's layer norm. Each adds up the residual that it is given; a hook on
// the norm takes over what comes after.
#pragma once

#include "model/linear.h"
#include "model/vector_site.h"

namespace pi0::model {

// Reference: openpi's patched modeling_gemma.py GemmaRMSNorm. Plain: the factor is 1 + weight. Adaptive
// (Pi0.5's action expert): scale, shift and gate come from the flow time through a linear.
class RmsNorm : public VectorSite {
 public:
  struct Output {
    Tensor sum;   // the residual stream, [B, L, W]
    Tensor x;     // the norm of `sum`, dtype of the input
    Tensor gate;  // [B or 1, 1, W] of the modulation's dtype, undefined unless adaptive
  };
  enum class Form { plain, adaptive };

  RmsNorm(const BuildContext& context, std::int64_t width, Form form);

  // Scale, shift and gate [B, 3W] of a condition [B, W]; undefined unless adaptive.
  Tensor modulation(const Tensor& condition) const;
  Output operator()(const Residual& x, const Tensor& modulation) const;

 private:
  Tensor hooked(VectorHook& hook, const Tensor& sum, const Tensor& modulation) const;

  Tensor weight_;            // [W], plain only
  Linear* dense_ = nullptr;  // W to 3W, adaptive only
};

class LayerNorm : public VectorSite {
 public:
  LayerNorm(const BuildContext& context, std::int64_t width);
  Normed operator()(const Residual& x) const;

 private:
  Tensor weight_, bias_;  // [W]
};

}  // namespace pi0::model
