// Kinds of charts as drawings. They know nothing of what the numbers mean.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/report/looks.h"
#include "tools/report/svg.h"

namespace pi0::tools {

inline constexpr double figure_width = 640;

using Number = std::optional<double>;

// Three significant digits, as in the page; "–" without a number.
std::string short_number(const Number& value);

struct ChartPoint {
  double x = 0, y = 0;
};

std::string mark(const ChartPoint& at, const LineLook& look, double radius);
std::string floor_line(const ChartPoint& from, const ChartPoint& to);

// Lines of muted text, broken where they are too long.
Drawing note(const std::string& text);
Drawing heading(const std::string& text);

// Names with their look of a line, or only its colour.
enum class LegendOf { lines, marks, colours };
Drawing legend(const std::vector<std::string>& names, LegendOf of);

Drawing scale_bar(const LogScale& scale, const std::string& label);

struct MatrixCell {
  std::string text;
  std::string fill = {};  // a colour or `hatched`; empty: only an outline
  std::string ink = {};
};

// The cell of a value: coloured by `scale`, hatched without one.
MatrixCell heat_cell(const Number& value, const LogScale& scale);

enum class ColumnNames { all, some };  // some: as many as have room, for numbers

struct Matrix {
  std::string corner;                                       // what rows and columns are
  std::vector<std::pair<std::string, std::size_t>> groups;  // names above so many columns; may be none
  std::vector<std::string> columns;
  std::vector<std::pair<std::string, std::vector<MatrixCell>>> rows;
  double row_height = 19;
  ColumnNames column_names = ColumnNames::all;
  std::string x_label = {};  // with it, the columns' names stand below
};

Drawing matrix(const Matrix& matrix);

struct Bar {
  std::string name;
  Number value;
  std::string text;  // beside the bar
  std::string tag = {};
  std::size_t look = 0;
  Number low = {}, high = {};  // a whisker
  std::string heading = {};    // above it
};

struct BarChart {
  std::vector<Bar> bars;
  std::string x_label;
  Number floor = {};  // a line there
  Number most = {};   // end of the axis, which then has numbers; without it, the largest value
};

Drawing bar_chart(const BarChart& chart);

struct StackedBar {
  std::string name;
  std::vector<std::pair<std::string, Number>> parts;
};

// Their parts side by side on one axis from zero, with a legend of these.
Drawing stacked_bars(const std::vector<StackedBar>& bars, const std::string& unit);

// The y axis is logarithmic: values that are not above zero are not drawn, and those far below the others lie on the
// lower edge. A line's place is that of its look.
struct LineChart {
  std::vector<std::vector<ChartPoint>> lines;  // x: whole numbers
  std::string x_label, y_label;
  std::vector<std::string> x_names = {};  // of 0, 1, ... instead of the numbers
};

Drawing line_chart(const LineChart& chart);

struct ScatterPoint {
  double x = 0, y = 0;
  std::size_t look = 0;
  bool is_hollow = false;
  std::string name = {};  // beside it where there is room
};

// Both axes are logarithmic, unless `x_ticks` gives the x values to mark.
struct ScatterChart {
  std::vector<ScatterPoint> points;
  std::string x_label, y_label;
  Number floor = {};  // a line across, with its name
  std::string floor_name = {};
  std::vector<double> x_ticks = {};     // in order
  std::vector<ChartPoint> joined = {};  // by a dashed line, in order
};

Drawing scatter_chart(const ScatterChart& chart);

}  // namespace pi0::tools
