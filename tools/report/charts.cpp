#include "tools/report/charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

namespace pi0::tools {
namespace {

struct MatrixPlan {
  double left = 0, cell_width = 0;
  double groups = 0, names = 0;  // heights of the groups' and columns' names
  double name_lines = 1;         // of a column's name, one word each
  bool is_upright = false;       // the columns' names
  bool is_below = false;         // their place
  double top() const { return groups + (is_below ? 0 : names); }
};

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  for (std::size_t from = 0; from < text.size();) {
    const std::size_t to = std::min(text.find(' ', from), text.size());
    words.push_back(text.substr(from, to - from));
    from = to + 1;
  }
  return words;
}

MatrixPlan matrix_plan(const Matrix& matrix) {
  std::vector<std::string> texts, names = {matrix.corner};
  for (const auto& [name, cells] : matrix.rows) {
    names.push_back(name);
    for (const MatrixCell& cell : cells) texts.push_back(cell.text);
  }
  MatrixPlan plan;
  plan.left = widest(names) + text_gap;
  const double most = 92, least = widest(texts) > 0 ? widest(texts) + 6 : 1;
  const double fair = (figure_width - plan.left) / static_cast<double>(std::max<std::size_t>(matrix.columns.size(), 1));
  plan.cell_width = std::max(std::min(fair, most), least);
  std::vector<std::string> words;
  for (const std::string& name : matrix.columns) {
    const auto own = words_of(name);
    words.insert(words.end(), own.begin(), own.end());
    plan.name_lines = std::max(plan.name_lines, static_cast<double>(own.size()));
  }
  plan.is_upright = matrix.column_names == ColumnNames::all && widest(words) > plan.cell_width - 2;
  plan.names = plan.is_upright ? widest(matrix.columns) + text_gap : 12 * plan.name_lines + 6;
  plan.groups = matrix.groups.empty() ? 0 : line_height + 5;
  plan.is_below = !matrix.x_label.empty();
  return plan;
}

std::string group_names(const Matrix& matrix, const MatrixPlan& plan) {
  std::string content;
  double from = plan.left;
  for (const auto& [name, count] : matrix.groups) {
    const double width = plan.cell_width * static_cast<double>(count);
    content += svg_text({.x = from, .y = 11, .text = name, .tone = TextTone::heading});
    content += svg_box(from, line_height, width - 3, 1.5, light_colour("line"));
    from += width;
  }
  return content;
}

std::string column_names(const Matrix& matrix, const MatrixPlan& plan, double bottom) {
  const double every = matrix.column_names == ColumnNames::all ? 1 : std::ceil(26 / plan.cell_width);
  std::string content;
  for (std::size_t i = 0; i < matrix.columns.size(); i += static_cast<std::size_t>(every)) {
    const double x = plan.left + (static_cast<double>(i) + 0.5) * plan.cell_width;
    if (plan.is_upright) {
      content += svg_text({.x = x + 4, .y = plan.top() - 5, .text = matrix.columns[i], .is_upright = true});
      continue;
    }
    double y = plan.is_below ? bottom + line_height - 2 : plan.top() - 5 - 12 * (plan.name_lines - 1);
    for (const std::string& word : words_of(matrix.columns[i])) {
      content += svg_text({.x = x, .y = y, .text = word, .anchor = TextAnchor::middle});
      y += 12;
    }
  }
  return content;
}

std::string matrix_cell(const MatrixCell& cell, double x, double y, double width, double height) {
  const double line = width > 4 ? 1 : 0;  // between cells
  std::vector<SvgAttribute> attributes = {{"x", x}, {"y", y}, {"width", width - line}, {"height", height - 1}};
  attributes.emplace_back("fill", cell.fill.empty() ? "none" : cell.fill);
  if (cell.fill.empty() || cell.fill == hatched) attributes.emplace_back("stroke", light_colour("line"));
  std::string content = svg_element("rect", attributes);
  if (!cell.text.empty()) {
    content += svg_text({.x = x + width / 2,
                         .y = y + height / 2 + 3.5,
                         .text = cell.text,
                         .anchor = TextAnchor::middle,
                         .tone = TextTone::plain,
                         .colour = cell.ink});
  }
  return content;
}

constexpr double swatch = 14, line_swatch = 34;

std::string legend_swatch(const LineLook& look, LegendOf of, double x, double y) {
  if (of == LegendOf::colours) return svg_box(x, y - 5, swatch - 4, 10, look.colour);
  const double width = of == LegendOf::lines ? line_swatch : swatch;
  std::string content = mark({.x = x + width / 2, .y = y}, look, 3.5);
  if (of == LegendOf::marks) return content;
  return svg_element("path", {{"d", fmt::format("M{:.2f},{:.2f}h{}", x, y, width)},
                              {"stroke", look.colour},
                              {"stroke-width", 2},
                              {"stroke-dasharray", look.dash}}) +
         content;
}

}  // namespace

std::string short_number(const Number& value) {
  if (!value) return "–";
  const double size = std::abs(*value);
  if (size == 0) return "0";
  if (*value == std::floor(*value) && size < 1e5) return fmt::format("{}", *value);
  if (size >= 100 && size < 1e5) return fmt::format("{:.0f}", *value);
  if (size >= 1e-3 && size < 100) {  // three digits, zeros at the end included
    return fmt::format("{:.{}f}", *value, 2 - static_cast<int>(std::floor(std::log10(size))));
  }
  const std::string text = fmt::format("{:.2e}", *value);
  const std::size_t e = text.find('e');
  const int power = std::stoi(text.substr(e + 1));
  return fmt::format("{}e{}{}", text.substr(0, e), power < 0 ? "−" : "", std::abs(power));
}

std::string mark(const ChartPoint& at, const LineLook& look, double radius) {
  return svg_element("path", {{"class", "mark"},
                              {"d", look.mark},
                              {"fill", look.colour},
                              {"transform", fmt::format("translate({:.2f} {:.2f}) scale({})", at.x, at.y, radius)}});
}

Drawing heading(const std::string& text) {
  return {.width = text_width(text) * 1.1,
          .height = line_height,
          .content = svg_text({.y = 12, .text = text, .tone = TextTone::heading})};
}

Drawing note(const std::string& text) {
  Drawing drawing;
  std::string line;
  const auto finish_line = [&] {
    drawing.content += svg_text({.y = drawing.height + 12, .text = line});
    drawing.width = std::max(drawing.width, text_width(line));
    drawing.height += line_height;
  };
  for (const std::string& word : words_of(text)) {
    const std::string longer = line.empty() ? word : line + " " + word;
    if (!line.empty() && text_width(longer) > figure_width) {
      finish_line();
      line = word;
    } else {
      line = longer;
    }
  }
  if (!line.empty()) finish_line();
  return drawing;
}

Drawing legend(const std::vector<std::string>& names, LegendOf of) {
  if (names.empty()) return {};
  Drawing drawing{.width = 0, .height = line_height + 2, .content = ""};
  const double room = of == LegendOf::lines ? line_swatch : swatch, between = 16;
  double x = 0;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const double width = room + 6 + text_width(names[i]);
    if (x > 0 && x + width > figure_width) {
      x = 0;
      drawing.height += line_height + 2;
    }
    const double y = drawing.height - 8;
    drawing.content +=
        legend_swatch(line_look(i), of, x, y) + svg_text({.x = x + room + 6, .y = y + 4, .text = names[i]});
    drawing.width = std::max(drawing.width, x + width);
    x += width + between;
  }
  return drawing;
}

Drawing scale_bar(const LogScale& scale, const std::string& label) {
  if (scale.is_empty()) return {};
  constexpr double bar = 160, height = 10, y = 12;
  constexpr int steps = 40;  // instead of a gradient, which not every program draws alike
  Drawing drawing{.width = text_width(label) + 10, .height = line_height + 2, .content = ""};
  const auto put = [&](const std::string& text) {
    drawing.content += svg_text({.x = drawing.width, .y = y, .text = text});
    drawing.width += text_width(text) + 8;
  };
  drawing.content = svg_text({.y = y, .text = label});
  put((scale.is_cut() ? "≤ " : "") + short_number(scale.low()));
  for (int i = 0; i < steps; ++i) {
    const double x = drawing.width + bar * i / steps;
    drawing.content +=
        svg_box(x, y - 9, drawing.width + bar - x, height, css(colour_at("sequential", (i + 0.5) / steps)));
  }
  drawing.width += bar + 8;
  put(short_number(scale.high()));
  put("(log scale)");
  return drawing;
}

MatrixCell heat_cell(const Number& value, const LogScale& scale) {
  if (!value) return {.text = "–", .fill = hatched};
  if (*value == 0) return {.text = "0"};
  const Rgb colour = colour_at("sequential", scale.share(*value));
  return {.text = short_number(value), .fill = css(colour), .ink = ink_on(colour)};
}

Drawing matrix(const Matrix& matrix) {
  const MatrixPlan plan = matrix_plan(matrix);
  const double bottom = plan.top() + matrix.row_height * static_cast<double>(matrix.rows.size());
  std::string content = group_names(matrix, plan) + column_names(matrix, plan, bottom);
  if (!matrix.corner.empty()) content += svg_text({.y = plan.top() - 5, .text = matrix.corner});
  const auto every = static_cast<std::size_t>(std::ceil(12 / matrix.row_height));  // names that have room
  for (std::size_t i = 0; i < matrix.rows.size(); ++i) {
    const auto& [name, cells] = matrix.rows[i];
    const double y = plan.top() + matrix.row_height * static_cast<double>(i);
    if (i % every == 0) {
      content += svg_text(
          {.x = plan.left - text_gap, .y = y + matrix.row_height / 2 + 4, .text = name, .anchor = TextAnchor::end});
    }
    for (std::size_t column = 0; column < cells.size(); ++column) {
      const double x = plan.left + plan.cell_width * static_cast<double>(column);
      content += matrix_cell(cells[column], x, y, plan.cell_width, matrix.row_height);
    }
  }
  const double width = plan.left + plan.cell_width * static_cast<double>(matrix.columns.size());
  if (!plan.is_below) return {width, bottom, content};
  content += svg_text({.x = (plan.left + width) / 2,
                       .y = bottom + 2 * line_height + 1,
                       .text = matrix.x_label,
                       .anchor = TextAnchor::middle});
  return {width, bottom + 2 * line_height + 6, content};
}

}  // namespace pi0::tools
