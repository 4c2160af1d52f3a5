#include "quant/format.h"

#include <stdexcept>
#include <string>
#include <vector>

#include "model/nearest_name.h"

namespace pi0::quant {

Format parse_format(std::string_view name) {
  if (const auto format = formats::find_format(name)) return *format;
  std::string known;
  std::vector<std::string> names;
  for (const Format format : all_formats) {
    names.emplace_back(name_of(format));
    known += (known.empty() ? "" : ", ") + names.back();
  }
  throw std::invalid_argument("format '" + std::string(name) + "' is unknown; known: " + known +
                              model::did_you_mean(name, names));
}

}  // namespace pi0::quant
