#include "tools/report/report_page.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <string_view>
#include <vector>

#include "quant/stats_book.h"
#include "tools/common/version.h"
#include "tools/report/looks.h"
#include "tools/report/report_parts.h"

namespace pi0::tools {
namespace {

using Json = nlohmann::ordered_json;

std::string escaped(std::string_view text) {
  std::string html;
  for (const char c : text) {
    switch (c) {
      case '<':
        html += "&lt;";
        break;
      case '>':
        html += "&gt;";
        break;
      case '&':
        html += "&amp;";
        break;
      default:
        html += c;
    }
  }
  return html;
}

// A script element must not contain anything that looks like a tag.
std::string script_json(const Json& content) {
  const std::string text = content.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
  std::string safe;
  for (const char c : text) c == '<' ? safe += "\\u003c" : safe += c;
  return safe;
}

// Texts repeat in thousands of rows: a column of texts holds their places in its list of `words`.
Json packed(const ReportTable& table) {
  Json words = Json::object();
  std::vector<std::vector<Json>> rows = table.rows;
  for (std::size_t column = 0; column < table.columns.size(); ++column) {
    const auto is_text = [&](const std::vector<Json>& row) { return row[column].is_string() || row[column].is_null(); };
    if (!std::ranges::all_of(rows, is_text)) continue;
    std::map<std::string, std::size_t> places;
    Json& list = words[table.columns[column]] = Json::array();
    for (std::vector<Json>& row : rows) {
      if (row[column].is_null()) continue;
      const auto [place, is_new] = places.emplace(row[column].get<std::string>(), places.size());
      if (is_new) list.push_back(row[column]);
      row[column] = place->second;
    }
  }
  return {{"columns", table.columns}, {"words", words}, {"rows", rows}};
}

}  // namespace

std::string report_page(const ReportData& data, const std::string& title) {
  Json tables = Json::object();
  for (const ReportTable& table : data.tables) tables[table.name] = packed(table);
  const Json content = {
      {"made", quant::utc_now()}, {"version", version()}, {"runs", data.runs}, {"tables", tables}, {"looks", looks()}};
  std::string page;
  std::string_view rest = page_template();
  const auto put = [&](std::string_view place, const std::string& text) {
    const std::size_t at = rest.find(place);
    page.append(rest.substr(0, at)).append(text);
    rest.remove_prefix(at + place.size());
  };
  put("{{title}}", escaped(title));
  put("{{style}}", std::string(page_style()));
  put("{{heading}}", escaped(title));
  put("{{data}}", script_json(content));
  put("{{script}}", std::string(page_script()));
  return page.append(rest);
}

}  // namespace pi0::tools
