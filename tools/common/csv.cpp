#include "tools/common/csv.h"

namespace pi0::tools {
namespace {

using Json = nlohmann::ordered_json;

std::string field(const Json& value) {
  if (value.is_null()) return "";
  if (!value.is_string()) return value.dump();
  const auto text = value.get<std::string>();
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted.append(c == '"' ? 2 : 1, c);
  return quoted + "\"";
}

}  // namespace

std::string csv_line(const std::vector<Json>& fields) {
  std::string line;
  for (const Json& value : fields) line += (&value == fields.data() ? "" : ",") + field(value);
  return line + "\n";
}

}  // namespace pi0::tools
