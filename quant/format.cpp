#include "quant/format.h"

#include <stdexcept>
#include <string>
#include <vector>

#include "model/nearest_name.h"

namespace pi0::quant {

std::string_view name_of(Format format) {
  switch (format) {
    case Format::float16:
      return "float16";
    case Format::bfloat16:
      return "bfloat16";
    case Format::float8_e4m3:
      return "float8_e4m3";
    case Format::float8_e5m2:
      return "float8_e5m2";
    case Format::float32:
      break;
  }
  return "float32";
}

Format parse_format(std::string_view name) {
  std::string known;
  std::vector<std::string> names;
  for (const Format format : all_formats) {
    if (name == name_of(format)) return format;
    names.emplace_back(name_of(format));
    known += (known.empty() ? "" : ", ") + names.back();
  }
  throw std::invalid_argument("format '" + std::string(name) + "' is unknown; known: " + known +
                              model::did_you_mean(name, names));
}

}  // namespace pi0::quant
