// What quantization methods do to a linear's operands before they are rounded (formats::Methods). Clipping comes first,
// then smoothing, then rotation; but for clipping, the product of the changed operands is that of the given ones.
// References: SmoothQuant (arXiv 2211.10438) for smoothing, QuaRot (2404.00456) for rotation.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>

#include "quant/formats/site_formats.h"

namespace pi0::model {

// What a calibration says of a linear's inputs.
struct InputStatistics {
  at::Tensor absmax = {};          // by channel [In] float32; undefined: there is no calibration, or nothing needs it
  std::optional<float> clip = {};  // the magnitude of the percentile of Methods::clip
};

class OperandTransform {
 public:
  OperandTransform() = default;  // changes nothing

  // For a weight [Out, In] of any floating dtype. Throws std::invalid_argument if smoothing lacks statistics.
  OperandTransform(const at::Tensor& weight, const formats::Methods& methods, const InputStatistics& statistics);

  bool changes_inputs() const { return block_ > 1 || channel_scales_.defined() || input_clip_; }
  bool changes_weights() const { return block_ > 1 || channel_scales_.defined() || weight_clip_; }

  // [..., In] and [Out, In], float32.
  at::Tensor inputs(const at::Tensor& x) const;
  at::Tensor weight(const at::Tensor& weight) const;

  // Whether inputs() of both are the same for the same x.
  bool has_inputs_of(const OperandTransform& other) const;

 private:
  at::Tensor rotated(const at::Tensor& values) const;

  std::int64_t block_ = 0;     // inputs of a block of the rotation; 0: none
  at::Tensor channel_scales_;  // [In], which inputs are divided by and weights multiplied by; undefined: none
  std::optional<float> input_clip_, weight_clip_;
};

}  // namespace pi0::model
