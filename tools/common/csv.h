// CSV as in RFC 4180; numbers with all their digits, null as an empty field.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pi0::tools {

std::string csv_line(const std::vector<nlohmann::ordered_json>& fields);

}  // namespace pi0::tools
