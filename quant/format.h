// Formats by their names, and quant/formats' types under this namespace.
#pragma once

#include <string_view>

#include "quant/formats/site_formats.h"

namespace pi0::quant {

using formats::all_formats;
using formats::Format;
using formats::name_of;
using formats::NumberFormat;
using formats::SiteFormats;

// Throws std::invalid_argument that says which part of the name is wrong, and what it may be.
NumberFormat parse_format(std::string_view name);

}  // namespace pi0::quant
