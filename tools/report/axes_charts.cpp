#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tools/report/charts.h"

namespace pi0::tools {
namespace {

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;

  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  double size() const { return high - low; }
};

// The area between the axes. `x` and `y` are in their units: logarithms on a logarithmic axis.
struct Frame {
  Range x, y;
  double height = 240, bottom_room = 40;
  bool are_names_upright = false;  // of x values
  static constexpr double left = 70, right = figure_width - 14, top = 8;

  double bottom() const { return height - bottom_room; }
  double at_x(double value) const { return left + (x.size() > 0 ? (value - x.low) / x.size() : 0.5) * (right - left); }
  double at_y(double value) const { return top + (1 - (value - y.low) / y.size()) * (bottom() - top); }
};

std::string tick_text(double power) {
  const double value = std::pow(10, power);
  const bool is_whole = std::abs(power - std::round(power)) < 1e-9;
  if (std::abs(power) <= 2) return fmt::format("{}", std::stod(fmt::format("{:.1e}", value)));
  const int whole = static_cast<int>(std::floor(power + 1e-9));
  const std::string mantissa = is_whole ? "1" : fmt::format("{:.1f}", value / std::pow(10, whole));
  return fmt::format("{}e{}{}", mantissa, whole < 0 ? "−" : "", std::abs(whole));
}

std::string line_between(const ChartPoint& from, const ChartPoint& to, const std::string& colour) {
  return svg_element(
      "path", {{"d", fmt::format("M{:.2f},{:.2f}L{:.2f},{:.2f}", from.x, from.y, to.x, to.y)}, {"stroke", colour}});
}

std::string polyline(const std::vector<ChartPoint>& points, const std::string& colour, double width,
                     const std::string& dash) {
  std::string places;
  for (const ChartPoint& point : points) places += fmt::format("{:.2f},{:.2f} ", point.x, point.y);
  return svg_element(
      "polyline",
      {{"points", places}, {"fill", "none"}, {"stroke", colour}, {"stroke-width", width}, {"stroke-dasharray", dash}});
}

// Grid and numbers of a logarithmic y axis, which begin at `from`.
std::string y_ticks(const Frame& frame, double step, double from) {
  std::string content;
  for (double tick = std::ceil(from / step - 1e-9) * step; tick <= frame.y.high + 1e-9; tick += step) {
    const double y = frame.at_y(tick);
    content += line_between({frame.left, y}, {frame.right, y}, light_colour("grid"));
    content += svg_text({.x = frame.left - text_gap, .y = y + 4, .text = tick_text(tick), .anchor = TextAnchor::end});
  }
  return content;
}

std::string x_tick(const Frame& frame, double place, const std::string& text) {
  const double x = frame.at_x(place), y = frame.bottom() + line_height + 1;
  if (!frame.are_names_upright) return svg_text({.x = x, .y = y, .text = text, .anchor = TextAnchor::middle});
  return svg_text({.x = x + 4, .y = y - 8, .text = text, .anchor = TextAnchor::end, .is_upright = true});
}

std::string axes(const Frame& frame, const std::string& x_label, const std::string& y_label) {
  const double middle = (frame.top + frame.bottom()) / 2;
  return line_between({frame.left, frame.bottom()}, {frame.right, frame.bottom()}, light_colour("muted")) +
         svg_text({.x = (frame.left + frame.right) / 2,
                   .y = frame.height - 4,
                   .text = x_label,
                   .anchor = TextAnchor::middle}) +
         svg_text({.x = 11, .y = middle, .text = y_label, .anchor = TextAnchor::middle, .is_upright = true});
}

Drawing no_values() { return note("No values above zero."); }

// ---- lines

struct LinePlan {
  Frame frame;
  double least = 0;  // logarithm of the lower edge
  bool is_cut = false;
};

LinePlan line_plan(const std::vector<std::vector<ChartPoint>>& lines) {
  LinePlan plan;
  Range logs;
  for (const auto& line : lines) {
    for (const ChartPoint& point : line) {
      plan.frame.x.add(point.x);
      logs.add(std::log10(point.y));
    }
  }
  plan.least = logs.high - 4;
  plan.is_cut = logs.low < plan.least;
  const double low = std::max(logs.low, plan.least);
  plan.frame.y.low = plan.is_cut ? plan.least : std::floor(low * 2 - 0.02) / 2;
  plan.frame.y.high = std::max(std::ceil(logs.high * 2 + 0.02) / 2, plan.frame.y.low + 0.5);
  return plan;
}

// Makes room for names.
void fit_names(const std::vector<std::string>& names, Frame& frame) {
  if (names.empty()) return;
  frame.x = {frame.x.low - 0.5, frame.x.high + 0.5};
  const double longest = widest(names), between = (frame.right - frame.left) / frame.x.size();
  if (longest < between - 4) return;
  frame.are_names_upright = true;
  frame.bottom_room += longest - line_height + 6;
  frame.height += longest - line_height + 6;
}

std::string named_x_ticks(const std::vector<std::string>& names, const Frame& frame) {
  std::string content;
  for (std::size_t i = 0; i < names.size(); ++i) content += x_tick(frame, static_cast<double>(i), names[i]);
  return content;
}

std::string whole_x_ticks(const Frame& frame) {
  const double every = std::ceil(28 * std::max(frame.x.size(), 1.0) / (frame.right - frame.left));
  std::string content;
  for (double tick = frame.x.low; tick <= frame.x.high; tick += every)
    content += x_tick(frame, tick, fmt::format("{}", tick));
  return content;
}

std::vector<std::vector<ChartPoint>> above_zero(std::vector<std::vector<ChartPoint>> lines) {
  for (auto& line : lines) {
    std::erase_if(line, [](const ChartPoint& point) { return !(point.y > 0); });
    std::ranges::stable_sort(line, {}, &ChartPoint::x);
  }
  return lines;
}

// ---- scatter

struct Box {
  double left = 0, top = 0, right = 0, bottom = 0;
  bool overlaps(const Box& other) const {
    return left < other.right && other.left < right && top < other.bottom && other.top < bottom;
  }
};

// Where texts still have room.
class Labels {
 public:
  Labels(const Frame& frame, const std::vector<ChartPoint>& marks) : frame_(frame) {
    for (const ChartPoint& at : marks) taken_.push_back({at.x - 5, at.y - 5, at.x + 5, at.y + 5});
  }

  // Beside, above or below the point; nothing where there is no room.
  std::string put(const std::string& text, const ChartPoint& at) {
    const double width = text_width(text), side = 7;
    for (const double shift : {0.0, -9.0, 9.0, -15.0, 15.0}) {
      for (const double x : {at.x + side, at.x - side - width, at.x - width / 2}) {
        if (take(x, at.y + shift, width)) return svg_text({.x = x, .y = at.y + shift + 4, .text = text});
      }
    }
    return "";
  }

  // Along a line across the area, at its left end where there is no room.
  std::string put_along(const std::string& text, double y) {
    const double first = frame_.left + 6, width = text_width(text);
    for (const double shift : {-8.0, 9.0}) {
      for (double x = first; x + width < frame_.right; x += 10) {
        if (take(x, y + shift, width)) return svg_text({.x = x, .y = y + shift + 4, .text = text});
      }
    }
    return svg_text({.x = first, .y = y - 4, .text = text});
  }

 private:
  bool take(double x, double middle, double width) {
    constexpr double half = 6;
    const Box box{x, middle - half, x + width, middle + half};
    const bool is_inside =
        box.left > frame_.left && box.right < frame_.right + 12 && box.top > 0 && box.bottom < frame_.bottom();
    if (!is_inside || std::ranges::any_of(taken_, [&](const Box& other) { return box.overlaps(other); })) return false;
    taken_.push_back(box);
    return true;
  }

  const Frame& frame_;
  std::vector<Box> taken_;
};

Frame frame_of(const ScatterChart& chart, const std::vector<ScatterPoint>& shown) {
  Frame frame{.x = {}, .y = {}, .height = 320};
  for (const ScatterPoint& point : shown) {
    if (chart.x_ticks.empty()) frame.x.add(std::log10(point.x));
    frame.y.add(std::log10(point.y));
  }
  for (const double tick : chart.x_ticks) frame.x.add(tick);
  if (chart.floor && *chart.floor > 0) frame.y.add(std::log10(*chart.floor));
  const double pad = chart.x_ticks.empty() ? 0.1 : frame.x.size() * 0.08 + 0.5;
  frame.x = {frame.x.low - pad, frame.x.high + pad};
  frame.y = {frame.y.low - 0.12, frame.y.high + 0.12};
  return frame;
}

std::string scatter_x_ticks(const ScatterChart& chart, const Frame& frame) {
  std::string content;
  constexpr double width_of_tick = 34;
  double free = 0;  // where the next tick has room
  for (const double tick : chart.x_ticks) {
    if (frame.at_x(tick) < free) continue;
    free = frame.at_x(tick) + width_of_tick;
    content += x_tick(frame, tick, fmt::format("{:.3g}", tick));
  }
  if (!chart.x_ticks.empty()) return content;
  const double step = frame.x.size() > 4 ? 1 : 0.5;
  for (double tick = std::ceil(frame.x.low / step) * step; tick <= frame.x.high; tick += step) {
    content += x_tick(frame, tick, tick_text(tick));
  }
  return content;
}

std::string scatter_mark(const ScatterPoint& point, const ChartPoint& at) {
  constexpr double radius = 4;
  const LineLook look = line_look(point.look);
  return svg_element("path", {{"class", "mark"},
                              {"d", look.mark},
                              {"fill", point.is_hollow ? "#ffffff" : look.colour},
                              {"stroke", look.colour},
                              {"stroke-width", fmt::format("{}", 1.5 / radius)},
                              {"transform", fmt::format("translate({:.2f} {:.2f}) scale({})", at.x, at.y, radius)}});
}

}  // namespace

std::string floor_line(const ChartPoint& from, const ChartPoint& to) {
  return svg_element("path", {{"class", "floor"},
                              {"d", fmt::format("M{:.2f},{:.2f}L{:.2f},{:.2f}", from.x, from.y, to.x, to.y)},
                              {"stroke", light_colour("text")},
                              {"stroke-width", 1.2},
                              {"stroke-dasharray", "5 4"}});
}

Drawing line_chart(const LineChart& chart) {
  const auto lines = above_zero(chart.lines);
  if (std::ranges::all_of(lines, [](const auto& line) { return line.empty(); })) return no_values();
  auto [frame, least, is_cut] = line_plan(lines);
  fit_names(chart.x_names, frame);
  std::string content = chart.x_names.empty() ? whole_x_ticks(frame) : named_x_ticks(chart.x_names, frame);
  const double size = frame.y.size(), step = size > 6 ? 2 : size > 2 ? 1 : 0.5;
  const double text_share = 14 / (frame.bottom() - frame.top) * size;
  content += y_ticks(frame, step, is_cut ? frame.y.low + text_share : frame.y.low);
  if (is_cut) {
    content += svg_text({.x = frame.left - text_gap,
                         .y = frame.bottom() + 4,
                         .text = "≤ " + tick_text(least),
                         .anchor = TextAnchor::end});
  }
  content += axes(frame, chart.x_label, chart.y_label);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const LineLook look = line_look(i);
    std::vector<ChartPoint> places;
    for (const ChartPoint& point : lines[i]) {
      places.push_back({frame.at_x(point.x), frame.at_y(std::max(std::log10(point.y), least))});
    }
    if (places.size() > 1) content += polyline(places, look.colour, 1.6, look.dash);
    for (const ChartPoint& at : places) content += mark(at, look, 2.8);
  }
  return {figure_width, frame.height, content};
}

Drawing scatter_chart(const ScatterChart& chart) {
  std::vector<ScatterPoint> shown = chart.points;
  std::erase_if(shown,
                [&](const ScatterPoint& point) { return !(point.y > 0) || (chart.x_ticks.empty() && !(point.x > 0)); });
  if (shown.empty()) return no_values();
  const Frame frame = frame_of(chart, shown);
  const auto place = [&](double x, double y) {
    return ChartPoint{frame.at_x(chart.x_ticks.empty() ? std::log10(x) : x), frame.at_y(std::log10(y))};
  };
  std::string content = y_ticks(frame, frame.y.size() > 3 ? 1 : 0.5, frame.y.low) + scatter_x_ticks(chart, frame) +
                        axes(frame, chart.x_label, chart.y_label);
  std::vector<ChartPoint> joined, marks;
  for (const ChartPoint& point : chart.joined) joined.push_back(place(point.x, point.y));
  if (joined.size() > 1) content += polyline(joined, light_colour("muted"), 1, "3 3");
  for (const ScatterPoint& point : shown) marks.push_back(place(point.x, point.y));
  Labels labels(frame, marks);
  for (std::size_t i = 0; i < shown.size(); ++i) content += scatter_mark(shown[i], marks[i]);
  if (chart.floor && *chart.floor > 0) {
    const double y = frame.at_y(std::log10(*chart.floor));
    content += floor_line({frame.left, y}, {frame.right, y}) + labels.put_along(chart.floor_name, y);
  }
  for (std::size_t i = 0; i < shown.size(); ++i) {
    if (!shown[i].name.empty()) content += labels.put(shown[i].name, marks[i]);
  }
  return {figure_width, frame.height, content};
}

}  // namespace pi0::tools
