#include "model/format_dtype.h"

#include <array>
#include <utility>

namespace pi0::model {
namespace {

using formats::Format;

constexpr std::array known = {std::pair{Format::float32, at::kFloat}, std::pair{Format::float16, at::kHalf},
                              std::pair{Format::bfloat16, at::kBFloat16},
                              std::pair{Format::float8_e4m3, at::kFloat8_e4m3fn},
                              std::pair{Format::float8_e5m2, at::kFloat8_e5m2}};
static_assert(known.size() == formats::all_formats.size());

}  // namespace

at::ScalarType dtype_of(Format format) {
  for (const auto& [of, dtype] : known) {
    if (of == format) return dtype;
  }
  TORCH_CHECK(false, "format '", name_of(format), "' has no dtype");
}

Format format_of(at::ScalarType dtype) {
  for (const auto& [format, of] : known) {
    if (of == dtype) return format;
  }
  TORCH_CHECK(false, "found ", dtype, ", expected a format's dtype");
}

}  // namespace pi0::model
