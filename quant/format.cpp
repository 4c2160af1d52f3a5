#include "quant/format.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/nearest_name.h"

namespace pi0::quant {

NumberFormat parse_format(std::string_view name) {
  try {
    return formats::parse_number_format(name);
  } catch (const std::invalid_argument& error) {
    const std::vector<std::string> names = formats::number_format_names();
    const std::string first(name.substr(0, name.find(':')));
    const bool is_known = std::ranges::find(names, first) != names.end();
    throw std::invalid_argument(error.what() + (is_known ? "" : model::did_you_mean(first, names)));
  }
}

}  // namespace pi0::quant
