// Converts between formats and LibTorch's dtypes.
#pragma once

#include <ATen/ATen.h>

#include "quant/formats/format.h"

namespace pi0::model {

// The dtype whose values are a format's codes.
at::ScalarType dtype_of(formats::Format format);

formats::Format format_of(at::ScalarType dtype);  // throws c10::Error that names a dtype without a format

}  // namespace pi0::model
