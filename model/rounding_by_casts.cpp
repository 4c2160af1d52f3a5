#include "model/rounding.h"

namespace pi0::model {

at::Tensor round_by_casts(const at::Tensor& values, Format format) {
  const formats::Grid grid = formats::grid_of(format);
  // Clamped, so that the result does not depend on what a cast does beyond the largest value.
  const at::Tensor within =
      grid.overflow == formats::Overflow::saturate ? values.clamp(-grid.largest, grid.largest) : values;
  return from_codes(to_codes(within, format));
}

}  // namespace pi0::model
