// CSV as RFC 4180 has it; numbers with all their digits, null as nothing.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pi0::tools {

std::string csv_line(const std::vector<nlohmann::ordered_json>& fields);

}  // namespace pi0::tools
