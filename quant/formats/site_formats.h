// The number formats of one matmul, by role.
#pragma once

#include <optional>

#include "quant/formats/number_format.h"

namespace pi0::formats {

struct SiteFormats {
  NumberFormat input = {};   // of activations; of an attention all operands
  NumberFormat weight = {};  // of a linear, and of its bias if it is a plain cast; else the bias stays as it is
  NumberFormat output = {};
  std::optional<NumberFormat> kv_cache = {};  // of the prefix's keys and values; none: kept as they are

  SiteFormats() = default;
  // The input's format is also that of weights, as in pi0-quant.
  SiteFormats(const NumberFormat& both, const NumberFormat& result) : input(both), weight(both), output(result) {}
  SiteFormats(Format both, Format result) : SiteFormats(NumberFormat{both}, NumberFormat{result}) {}
  bool operator==(const SiteFormats&) const = default;
};

}  // namespace pi0::formats
