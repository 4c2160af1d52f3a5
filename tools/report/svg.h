// SVG as text: elements, and drawings under one another. Colours are concrete and styles are attributes, which every
// program that reads SVG understands.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pi0::tools {

struct SvgAttribute {
  SvgAttribute(std::string_view its_name, double number);
  SvgAttribute(std::string_view its_name, std::string text) : name(its_name), value(std::move(text)) {}

  std::string_view name;
  std::string value;  // without an attribute when it is empty
};

// `content` is SVG; the attributes' values are escaped.
std::string svg_element(std::string_view name, const std::vector<SvgAttribute>& attributes,
                        std::string_view content = "");

// As XML wants it; what it cannot hold becomes U+FFFD.
std::string svg_escaped(std::string_view text);

enum class TextAnchor { start, middle, end };
enum class TextTone { plain, muted, heading };

struct SvgText {
  double x = 0, y = 0;  // of the base line
  std::string text;
  TextAnchor anchor = TextAnchor::start;
  TextTone tone = TextTone::muted;
  std::string colour = {};  // instead of the tone's
  bool is_upright = false;  // reads from below upwards
  std::string tail = {};    // muted, behind it
};

std::string svg_text(const SvgText& text);

// Upper estimates for the usual fonts.
double text_width(std::string_view text);
double widest(const std::vector<std::string>& texts);

inline constexpr double line_height = 15, text_gap = 8;

std::string svg_box(double x, double y, double width, double height, const std::string& fill);

// With "…" for the rest of a text that is longer.
enum class Keep { head, tail };
std::string shortened(const std::string& text, std::size_t letters, Keep keep);

struct Drawing {
  double width = 0, height = 0;
  std::string content;
};

// One under the other, `gap` apart; empty ones take no room.
Drawing stacked(const std::vector<Drawing>& drawings, double gap = 8);

// A file. `title` and `description` are for those who cannot see it.
std::string svg_file(const Drawing& drawing, const std::string& title, const std::string& description);

// The fill of an area without a value.
inline constexpr const char* hatched = "url(#hatch)";

}  // namespace pi0::tools
