#include "tools/report/figures.h"

#include <fmt/format.h>

#include <algorithm>

#include "tools/report/figure_list.h"

namespace pi0::tools {
namespace {

// For every file system: other characters become one line, and long names lose their beginning.
std::string file_part(std::string_view name) {
  constexpr std::size_t longest = 100;
  std::string safe;
  for (const char c : name) {
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
    if (is_plain || c == '_' || (c == '.' && !safe.empty()))
      safe += c;
    else if (!safe.ends_with('_'))
      safe += '_';
  }
  return safe.size() > longest ? safe.substr(safe.size() - longest) : safe;
}

}  // namespace

void FigureList::add(const std::string& run, const std::string& what, const std::string& title,
                     const std::vector<Drawing>& parts) {
  std::string_view name = run;
  if (name.ends_with(".json")) name.remove_suffix(5);
  const std::string stem = name.empty() ? file_part(what) : fmt::format("{}_{}", file_part(name), file_part(what));
  std::string file = stem + ".svg";
  for (int number = 2; !files_.insert(file).second; ++number) file = fmt::format("{}_{}.svg", stem, number);
  const std::string whole_title = run.empty() ? title : fmt::format("{}: {}", run, title);
  figures_.push_back({file, svg_file(stacked(parts), whole_title, "Made by pi0 report.")});
}

std::string spaced(std::string name) {
  std::ranges::replace(name, '_', ' ');
  return name;
}

std::vector<std::string> spaced(std::vector<std::string> names) {
  for (std::string& name : names) name = spaced(name);
  return names;
}

std::string plain_layer(const std::string& layer) {
  std::string_view rest = layer;
  for (const std::string_view prefix : {"paligemma_with_expert.", "paligemma.model."}) {
    if (!rest.starts_with(prefix)) break;
    rest.remove_prefix(prefix.size());
  }
  return shortened(std::string(rest), 90, Keep::tail);
}

std::string interval_text(const Number& low, const Number& high) {
  return low && high ? fmt::format(" ({} to {})", short_number(low), short_number(high)) : "";
}

Measure measure_of(const ReportRows& rows, const std::vector<Measure>& measures) {
  const auto found = std::ranges::find_if(measures, [&](const Measure& measure) { return have(rows, measure.column); });
  return found == measures.end() ? measures.front() : *found;
}

std::vector<Figure> figures_of(const ReportData& data) {
  FigureList figures(data);
  for (const auto& run : data.runs) {
    const auto name = run["name"].get<std::string>();
    add_setting_figures(figures, name);
    add_component_figure(figures, name);
    add_success_figure(figures, name);
    add_layer_figures(figures, name);
    add_sensitivity_figures(figures, name);
    add_action_figures(figures, name);
    add_time_figures(figures, run);
  }
  add_comparison(figures);
  return figures.take();
}

}  // namespace pi0::tools
