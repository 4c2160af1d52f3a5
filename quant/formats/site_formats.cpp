#include "quant/formats/site_formats.h"

#include <stdexcept>

namespace pi0::formats {

void check(const SiteFormats& formats) {
  const auto refuse = [](const NumberFormat& format, const std::string& why) {
    throw std::invalid_argument("format '" + name_of(format) + "': " + why);
  };
  const auto check_dynamic = [&](const NumberFormat& format, const std::string& role) {
    if (format.is_static) refuse(format, "static scales are of inputs alone, found one of " + role);
  };
  check_dynamic(formats.weight, "weights");
  check_dynamic(formats.output, "outputs");
  if (formats.kv_cache) check_dynamic(*formats.kv_cache, "KV caches");
  if (formats.vector) check_dynamic(*formats.vector, "vector operations");
  if (formats.input.is_static && formats.methods.rotate) {
    refuse(formats.input, "inputs that are rotated have no static scale, since a calibration knows them unrotated");
  }
}

}  // namespace pi0::formats
