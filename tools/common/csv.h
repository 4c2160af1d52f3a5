// CSV as in RFC 4180; numbers with all their digits, null as an empty field.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pi0::tools {

// The rows of a file, with quoted fields unquoted; empty lines are no rows. Throws nothing: a quote without its end
// reaches to the end of the text.
std::vector<std::vector<std::string>> parse_csv(const std::string& text);

std::string csv_line(const std::vector<nlohmann::ordered_json>& fields);

}  // namespace pi0::tools
