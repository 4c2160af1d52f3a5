#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "tools/report/charts.h"

namespace pi0::tools {
namespace {

constexpr double row_height = 20, stacked_height = 28, no_value_width = 40, least_room = 150;

struct BarPlan {
  double left = 0, room = 0, most = 0;

  // `texts` stand beside the bars.
  BarPlan(const std::vector<std::string>& names, const std::vector<std::string>& texts, double most_value)
      : left(widest(names) + text_gap),
        room(std::max(least_room, figure_width - left - widest(texts) - text_gap)),
        most(std::max(most_value, std::numeric_limits<double>::min())),
        width_(left + room + text_gap + widest(texts)) {}

  double x(double value) const { return left + std::clamp(value / most, 0.0, 1.0) * room; }
  double width() const { return width_; }

 private:
  double width_;
};

BarPlan bar_plan(const BarChart& chart) {
  std::vector<std::string> names, texts;
  double most = chart.floor.value_or(0);
  for (const Bar& bar : chart.bars) {
    names.push_back(bar.name);
    texts.push_back(bar.tag.empty() ? bar.text : bar.text + "   " + bar.tag);
    most = std::max({most, bar.value.value_or(0), bar.high.value_or(0)});
  }
  return {names, texts, chart.most.value_or(most)};
}

std::string whisker(double from, double to, double middle) {
  constexpr double cap = 4;
  const std::string path = fmt::format("M{0:.2f},{2:.2f}H{1:.2f}M{0:.2f},{3:.2f}v{4}M{1:.2f},{3:.2f}v{4}", from, to,
                                       middle, middle - cap, 2 * cap);
  return svg_element(
      "path",
      {{"class", "whisker"}, {"d", path}, {"fill", "none"}, {"stroke", light_colour("text")}, {"stroke-width", 1.2}});
}

std::string bar_name(const std::string& name, const BarPlan& plan, double middle) {
  return svg_text({.x = plan.left - text_gap, .y = middle + 4, .text = name, .anchor = TextAnchor::end});
}

std::string bar_row(const Bar& bar, const BarPlan& plan, double top) {
  const double middle = top + row_height / 2;
  double end = bar.value ? std::max(plan.x(*bar.value), plan.left + 1) : plan.left + no_value_width;
  std::string content = bar_name(bar.name, plan, middle);
  content += svg_element("rect", {{"class", "bar"},
                                  {"x", plan.left},
                                  {"y", top + 4},
                                  {"width", end - plan.left},
                                  {"height", row_height - 7},
                                  {"fill", bar.value ? line_look(bar.look).colour : hatched}});
  if (bar.low && bar.high) {
    content += whisker(plan.x(*bar.low), plan.x(*bar.high), middle);
    end = std::max(end, plan.x(*bar.high));
  }
  return content +
         svg_text({.x = end + text_gap, .y = middle + 4, .text = bar.text, .tone = TextTone::plain, .tail = bar.tag});
}

std::string axis_numbers(const BarPlan& plan, double y) {
  std::string content = svg_element("path", {{"d", fmt::format("M{:.2f},{:.2f}h{:.2f}", plan.left, y + 1, plan.room)},
                                             {"stroke", light_colour("muted")}});
  for (const double share : {0.0, 0.5, 1.0}) {
    content += svg_text({.x = plan.left + share * plan.room,
                         .y = y + line_height,
                         .text = short_number(share * plan.most),
                         .anchor = TextAnchor::middle});
  }
  return content;
}

}  // namespace

Drawing bar_chart(const BarChart& chart) {
  const BarPlan plan = bar_plan(chart);
  std::string content;
  double y = 0;
  for (const Bar& bar : chart.bars) {
    if (!bar.heading.empty()) {
      y += y > 0 ? row_height * 1.4 : row_height * 0.9;
      content += svg_text({.x = plan.left, .y = y - 5, .text = bar.heading, .tone = TextTone::heading});
    }
    content += bar_row(bar, plan, y);
    y += row_height;
  }
  if (chart.floor && *chart.floor > 0) content += floor_line({plan.x(*chart.floor), 0}, {plan.x(*chart.floor), y});
  if (chart.most) {
    content += axis_numbers(plan, y);
    y += line_height;
  }
  content += svg_text({.x = plan.left, .y = y + line_height - 1, .text = chart.x_label});
  return {std::max(plan.width(), plan.left + text_width(chart.x_label)), y + line_height + 3, content};
}

Drawing stacked_bars(const std::vector<StackedBar>& bars, const std::string& unit) {
  std::vector<std::string> names, texts, parts;
  std::vector<double> totals;
  for (const StackedBar& bar : bars) {
    double& total = totals.emplace_back(0);
    for (const auto& [part, value] : bar.parts) {
      total += value.value_or(0);
      if (std::ranges::find(parts, part) == parts.end()) parts.push_back(part);
    }
    names.push_back(bar.name);
    texts.push_back(fmt::format("{} {}", short_number(total), unit));
  }
  const BarPlan plan(names, texts, totals.empty() ? 0 : *std::ranges::max_element(totals));
  std::string content;
  for (std::size_t i = 0; i < bars.size(); ++i) {
    const double top = stacked_height * static_cast<double>(i), middle = top + stacked_height / 2;
    content += bar_name(names[i], plan, middle);
    double from = 0;
    for (const auto& [part, value] : bars[i].parts) {
      const auto look = static_cast<std::size_t>(std::ranges::find(parts, part) - parts.begin());
      const double to = from + value.value_or(0), width = std::max(0.5, plan.x(to) - plan.x(from) - 1);
      content += svg_box(plan.x(from), top + 4, width, stacked_height - 8, line_look(look).colour);
      from = to;
    }
    content += svg_text({.x = plan.x(from) + text_gap, .y = middle + 4, .text = texts[i], .tone = TextTone::plain});
  }
  const Drawing chart{plan.width(), stacked_height * static_cast<double>(bars.size()), content};
  return stacked({legend(parts, LegendOf::colours), chart});
}

}  // namespace pi0::tools
