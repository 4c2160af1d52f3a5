// pi0 report: results of any kind as one HTML page, CSV files, and tables for a terminal.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "protocol/files.h"
#include "tools/common/commands.h"
#include "tools/common/print.h"
#include "tools/report/report_data.h"
#include "tools/report/report_page.h"
#include "tools/report/report_tables.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

struct ReportOptions {
  std::vector<fs::path> results;
  fs::path output;
  std::string title;
};

void report(const ReportOptions& options) {
  if (!options.output.empty()) protocol::check_writable(options.output);
  const ReportData data = read_results(options.results);
  print("{}", report_text(data));
  if (options.output.empty()) return;
  const std::string page = report_page(data, options.title);
  if (fs::exists(options.output) && !fs::is_regular_file(options.output)) {  // no files beside a pipe or a device
    return protocol::write_whole(options.output, page);
  }
  write_csv(data, options.output);
  protocol::write_whole(options.output, page);
  print(stderr, "report: {}, and {} beside it\n", options.output.string(), counted(data.tables.size(), "CSV file"));
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
  command->add_option("--title", options->title, "Its heading")->capture_default_str();
  command->callback([options] { report(*options); });
}

}  // namespace pi0::tools
