// CSV as in RFC 4180; numbers with all their digits, null as an empty field.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pi0::tools {

// The rows of a file, with quoted fields unquoted and without a byte order mark; an empty line is a row of one empty
// field, but not at the end. Throws std::runtime_error for a quote without its end.
std::vector<std::vector<std::string>> parse_csv(const std::string& text);

std::string csv_line(const std::vector<nlohmann::ordered_json>& fields);

}  // namespace pi0::tools
