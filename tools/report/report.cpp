// pi0 report: results of any kind as one HTML page, CSV files, figures, and tables for a terminal.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "protocol/files.h"
#include "tools/common/commands.h"
#include "tools/common/print.h"
#include "tools/report/figures.h"
#include "tools/report/report_data.h"
#include "tools/report/report_page.h"
#include "tools/report/report_tables.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

struct ReportOptions {
  std::vector<fs::path> results;
  fs::path output;
  fs::path svg;
  std::string title;
};

// A folder that can be written; where it was absent, it goes again if it stays empty.
class FigureFolder {
 public:
  explicit FigureFolder(const fs::path& folder) : folder_(folder) {
    std::error_code error;
    for (fs::path part = fs::absolute(folder); !fs::exists(part, error) && !error; part = part.parent_path()) {
      made_.push_back(part);
    }
    error.clear();
    fs::create_directories(folder, error);
    if (!error && !fs::is_directory(folder)) error = std::make_error_code(std::errc::not_a_directory);
    if (error) throw std::runtime_error(fmt::format("{}: cannot be written: {}", folder.string(), error.message()));
    protocol::check_writable(folder / "figure.svg");
  }
  ~FigureFolder() {
    std::error_code none;  // a folder that is not empty stays
    for (const fs::path& part : made_) fs::remove(part, none);
  }
  FigureFolder(const FigureFolder&) = delete;
  FigureFolder& operator=(const FigureFolder&) = delete;

  void write(const std::vector<Figure>& figures) const {
    for (const Figure& figure : figures) protocol::write_whole(folder_ / figure.file, figure.svg);
    print(stderr, "report: {} in {}\n", counted(figures.size(), "SVG file"), folder_.string());
  }

 private:
  fs::path folder_;
  std::vector<fs::path> made_;  // the innermost first
};

void write_page(const ReportOptions& options, const ReportData& data) {
  const std::string page = report_page(data, options.title);
  if (fs::exists(options.output) && !fs::is_regular_file(options.output)) {  // no files beside a pipe or a device
    return protocol::write_whole(options.output, page);
  }
  write_csv(data, options.output);
  protocol::write_whole(options.output, page);
  print(stderr, "report: {}, and {} beside it\n", options.output.string(), counted(data.tables.size(), "CSV file"));
}

void report(const ReportOptions& options) {
  if (!options.output.empty()) protocol::check_writable(options.output);
  std::optional<FigureFolder> folder;
  if (!options.svg.empty()) folder.emplace(options.svg);
  const ReportData data = read_results(options.results);
  const std::vector<Figure> figures = folder ? figures_of(data) : std::vector<Figure>();
  if (folder && figures.empty()) {
    throw std::runtime_error("the results have nothing to draw, so --svg wrote no files");
  }
  print("{}", report_text(data));
  if (!options.output.empty()) write_page(options, data);
  if (folder) folder->write(figures);
}

}  // namespace

void add_report(CLI::App& app) {
  CLI::App* command = app.add_subcommand("report", "Show results of sweep, closed-loop, bench and servers");
  command->footer("Example:\n  pi0 report sweep stats.json bench.json --output report.html");
  const auto options = std::make_shared<ReportOptions>();
  options->title = "Cost of number formats, layer by layer";
  command
      ->add_option("results", options->results,
                   "Folders of pi0 sweep or closed-loop, statistics files (pi0-quant's too), files of pi0 bench --json")
      ->required();
  command->add_option("--output", options->output,
                      "HTML file, with a CSV file per table beside it; default: tables on the terminal only");
  command->add_option("--svg", options->svg, "Folder for each figure of the page as an SVG file, for papers");
  command->add_option("--title", options->title, "Its heading")->capture_default_str();
  command->callback([options] { report(*options); });
}

}  // namespace pi0::tools
