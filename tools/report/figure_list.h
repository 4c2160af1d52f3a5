// What the figures share: where they are collected, and words.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tools/report/charts.h"
#include "tools/report/figures.h"
#include "tools/report/report_rows.h"

namespace pi0::tools {

class FigureList {
 public:
  explicit FigureList(const ReportData& report) : data(report) {}

  // `parts` stand under one another. The file is named by the run and `what`; the title is for those who cannot see it.
  void add(const std::string& run, const std::string& what, const std::string& title,
           const std::vector<Drawing>& parts);
  std::vector<Figure> take() { return std::move(figures_); }

  const ReportData& data;

 private:
  std::vector<Figure> figures_;
  std::set<std::string> files_;
};

// Each adds figures of one run, if the run has what they show.
void add_setting_figures(FigureList& figures, const std::string& run);
void add_component_figure(FigureList& figures, const std::string& run);
void add_success_figure(FigureList& figures, const std::string& run);
void add_time_figures(FigureList& figures, const nlohmann::ordered_json& run);
void add_layer_figures(FigureList& figures, const std::string& run);
void add_sensitivity_figures(FigureList& figures, const std::string& run);
void add_action_figures(FigureList& figures, const std::string& run);

void add_comparison(FigureList& figures);  // of exactly two settings

inline constexpr const char* hollow_note = "Hollow: not above the floor.";

std::string spaced(std::string name);  // "action expert" for "action_expert"
std::vector<std::string> spaced(std::vector<std::string> names);
std::string plain_layer(const std::string& layer);                 // without what all have in front
std::string interval_text(const Number& low, const Number& high);  // " (0.533 to 0.891)", or nothing

struct Measure {
  const char* column;
  const char* name;
};

// The first that has numbers.
Measure measure_of(const ReportRows& rows, const std::vector<Measure>& measures);

}  // namespace pi0::tools
