#include "tools/report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "tools/report/looks.h"

namespace pi0::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr double font_size = 11, margin = 8;

// In hundredths, with no more digits than that takes.
std::string coordinate(double number) { return fmt::format("{}", std::round(number * 100) / 100 + 0.0); }

std::string tail_of(const SvgText& text) {
  return svg_element("tspan", {{"dx", 8}, {"fill", light_colour("muted")}}, svg_escaped(text.tail));
}

bool starts_letter(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; }

}  // namespace

SvgAttribute::SvgAttribute(std::string_view its_name, double number) : name(its_name), value(coordinate(number)) {}

std::string svg_element(std::string_view name, const std::vector<SvgAttribute>& attributes, std::string_view content) {
  std::string text = fmt::format("<{}", name);
  for (const SvgAttribute& attribute : attributes) {
    if (!attribute.value.empty()) text += fmt::format(" {}=\"{}\"", attribute.name, svg_escaped(attribute.value));
  }
  return text + (content.empty() ? "/>\n" : fmt::format(">{}</{}>\n", content, name));
}

std::string svg_escaped(std::string_view text) {
  constexpr const char* unknown = "\ufffd";
  const std::string utf8 =  // paths may hold any bytes
      Json::parse(Json(text).dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace)).get<std::string>();
  std::string xml;
  for (std::size_t i = 0; i < utf8.size(); ++i) {
    const char c = utf8[i];
    const bool is_noncharacter = utf8.compare(i, 2, "\xef\xbf") == 0 && static_cast<unsigned char>(utf8[i + 2]) >= 0xbe;
    if (is_noncharacter || (c >= 0 && c < ' ') || c == '\x7f') {
      xml += unknown;
      if (is_noncharacter) i += 2;
      continue;
    }
    switch (c) {
      case '<':
        xml += "&lt;";
        break;
      case '>':
        xml += "&gt;";
        break;
      case '&':
        xml += "&amp;";
        break;
      case '"':
        xml += "&quot;";
        break;
      default:
        xml += c;
    }
  }
  return xml;
}

std::string svg_text(const SvgText& text) {
  static const char* const anchors[] = {"", "middle", "end"};
  const std::string tone = light_colour(text.tone == TextTone::muted ? "muted" : "text");
  return svg_element("text",
                     {{"x", text.x},
                      {"y", text.y},
                      {"text-anchor", anchors[static_cast<int>(text.anchor)]},
                      {"font-weight", text.tone == TextTone::heading ? "bold" : ""},
                      {"transform", text.is_upright ? fmt::format("rotate(-90 {:.2f} {:.2f})", text.x, text.y) : ""},
                      {"fill", text.colour.empty() ? tone : text.colour}},
                     svg_escaped(text.text) + (text.tail.empty() ? "" : tail_of(text)));
}

double text_width(std::string_view text) {
  constexpr std::string_view narrow = "fijlrt.,:;'|!()[]/ ", wide = "mwMW%@";
  double widths = 0;
  for (const char byte : text) {
    if (!starts_letter(byte)) continue;
    const bool is_ideograph = static_cast<unsigned char>(byte) >= 0xe3;
    widths += is_ideograph                       ? 1.0
              : narrow.find(byte) != narrow.npos ? 0.41
              : wide.find(byte) != wide.npos     ? 0.98
                                                 : 0.645;
  }
  return widths * font_size;
}

double widest(const std::vector<std::string>& texts) {
  double width = 0;
  for (const std::string& text : texts) width = std::max(width, text_width(text));
  return width;
}

std::string svg_box(double x, double y, double width, double height, const std::string& fill) {
  return svg_element("rect", {{"x", x}, {"y", y}, {"width", width}, {"height", height}, {"fill", fill}});
}

std::string shortened(const std::string& text, std::size_t letters, Keep keep) {
  std::vector<std::size_t> starts;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (starts_letter(text[i])) starts.push_back(i);
  }
  if (starts.size() <= letters) return text;
  return keep == Keep::head ? text.substr(0, starts[letters - 1]) + "…"
                            : "…" + text.substr(starts[starts.size() - letters + 1]);
}

Drawing stacked(const std::vector<Drawing>& drawings, double gap) {
  Drawing all;
  for (const Drawing& drawing : drawings) {
    if (drawing.height <= 0) continue;
    const double top = all.height > 0 ? all.height + gap : 0;
    all.content += top > 0 ? svg_element("g", {{"transform", fmt::format("translate(0 {:.2f})", top)}}, drawing.content)
                           : drawing.content;
    all.height = top + drawing.height;
    all.width = std::max(all.width, drawing.width);
  }
  return all;
}

std::string svg_file(const Drawing& drawing, const std::string& title, const std::string& description) {
  const double width = std::ceil(drawing.width + 2 * margin), height = std::ceil(drawing.height + 2 * margin);
  const std::string hatch = svg_element(
      "path", {{"d", "M-1,1L1,-1M0,6L6,0M5,7L7,5"}, {"stroke", light_colour("hatch")}, {"stroke-width", 1.5}});
  const std::string pattern =
      svg_element("pattern", {{"id", "hatch"}, {"width", 6}, {"height", 6}, {"patternUnits", "userSpaceOnUse"}}, hatch);
  return svg_element(
      "svg",
      {{"xmlns", "http://www.w3.org/2000/svg"},
       {"width", width},
       {"height", height},
       {"viewBox", fmt::format("0 0 {} {}", width, height)},
       {"font-family", "sans-serif"},
       {"font-size", font_size}},
      fmt::format("\n{}{}{}{}{}", svg_element("title", {}, svg_escaped(title)),
                  svg_element("desc", {}, svg_escaped(description)), svg_element("defs", {}, pattern),
                  svg_box(0, 0, width, height, "#ffffff"),
                  svg_element("g", {{"transform", fmt::format("translate({} {})", margin, margin)}}, drawing.content)));
}

}  // namespace pi0::tools
