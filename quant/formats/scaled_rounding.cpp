#include "quant/formats/scaled_rounding.h"

#include <cmath>
#include <limits>

namespace pi0::formats {

Range combined(const Range& a, const Range& b) {
  if (std::isnan(a.smallest) || std::isnan(b.smallest)) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    return {nan, nan};
  }
  return {std::fmin(a.smallest, b.smallest), std::fmax(a.largest, b.largest)};
}

std::int64_t CodeLayout::scale_rows(std::int64_t rows) const {
  return rows / rows_per_scale + (rows % rows_per_scale == 0 ? 0 : 1);
}

CodeLayout layout_of(const NumberFormat& format, std::int64_t length) {
  CodeLayout layout{(length * code_bits(format.element) + 7) / 8, 1, 1};
  switch (format.granularity) {
    case Granularity::none:
      layout.scales_per_row = 0;
      break;
    case Granularity::tensor:
      layout.rows_per_scale = std::numeric_limits<std::int64_t>::max();
      break;
    case Granularity::row:
      break;
    case Granularity::tile:
      layout.rows_per_scale = format.group;
      [[fallthrough]];
    case Granularity::group:
      layout.scales_per_row = (length + format.group - 1) / format.group;
      break;
  }
  return layout;
}

}  // namespace pi0::formats
