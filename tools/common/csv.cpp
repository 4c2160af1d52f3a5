#include "tools/common/csv.h"

#include <stdexcept>

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

std::vector<std::vector<std::string>> parse_csv(const std::string& text) {
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> row(1);
  bool is_quoted = false;
  const auto end_row = [&] {
    rows.push_back(std::move(row));
    row.assign(1, "");
  };
  const std::string byte_order_mark = "\xEF\xBB\xBF";
  for (std::size_t i = text.starts_with(byte_order_mark) ? byte_order_mark.size() : 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"' && is_quoted && i + 1 < text.size() && text[i + 1] == '"') {
      row.back() += text[++i];  // a doubled quote
    } else if (c == '"') {
      is_quoted = !is_quoted;
    } else if (is_quoted || (c != ',' && c != '\n' && c != '\r')) {
      row.back() += c;
    } else if (c == ',') {
      row.emplace_back();
    } else if (c == '\n') {
      end_row();
    }
  }
  if (is_quoted) throw std::runtime_error("a quote has no end");
  if (row.size() > 1 || !row.front().empty()) end_row();
  while (!rows.empty() && rows.back().size() == 1 && rows.back().front().empty()) rows.pop_back();
  return rows;
}

}  // namespace pi0::tools
