// How figures look, in the page and in files: page/looks.json and the light theme of page/style.css.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pi0::tools {

// How figures look. lines: the colour (--c0, ...), dashes and mark of each; marks: paths of radius 1; sequential and
// diverging: stops of colours; matrices: their order in a block.
const nlohmann::ordered_json& looks();

// A colour of the light theme by its name there, "text" for --text.
std::string light_colour(std::string_view name);

struct LineLook {
  std::string colour;
  std::string dash;  // empty: a solid line
  std::string mark;  // a path of radius 1
};

std::size_t look_count();
LineLook line_look(std::size_t place);  // they repeat

struct Rgb {
  int red = 0, green = 0, blue = 0;
};

// `share` of the way, from 0 to 1, along the stops of "sequential" or "diverging".
Rgb colour_at(const std::string& stops, double share);
std::string css(const Rgb& colour);
std::string ink_on(const Rgb& colour);  // black or white, whatever can be read better

// Where numbers lie between the least and the largest of all, on a logarithmic axis of at most four decades: single
// underflows would take the colours of all others.
class LogScale {
 public:
  explicit LogScale(const std::vector<std::optional<double>>& values);

  bool is_empty() const { return high_ <= 0; }  // no value above zero
  bool is_cut() const { return is_cut_; }       // smaller ones have the colour of the least
  double low() const { return low_; }
  double high() const { return high_; }
  double share(double value) const;

 private:
  double low_ = 0, high_ = 0;
  bool is_cut_ = false;
};

}  // namespace pi0::tools
