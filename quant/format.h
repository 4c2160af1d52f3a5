// Formats by their names, and quant/formats' types under this namespace.
#pragma once

#include <string_view>

#include "quant/formats/format.h"

namespace pi0::quant {

using formats::all_formats;
using formats::code_bits;
using formats::find_format;
using formats::first_beyond;
using formats::Format;
using formats::FormatPair;
using formats::name_of;

Format parse_format(std::string_view name);  // throws std::invalid_argument listing the known names

}  // namespace pi0::quant
