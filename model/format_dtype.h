// Formats as libtorch's dtypes: the one place where one becomes the other.
#pragma once

#include <ATen/ATen.h>

#include "quant/formats/format.h"

namespace pi0::model {

// The dtype whose values are a format's codes.
at::ScalarType dtype_of(formats::Format format);

formats::Format format_of(at::ScalarType dtype);  // throws c10::Error, which names the dtype, where none has it

}  // namespace pi0::model
