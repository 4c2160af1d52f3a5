// pi0 closed-loop: a server per pair of formats, and a simulator's episodes against each. Reference: pi0-quant
// run_benchmark.py.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <vector>

#include "protocol/files.h"
#include "tools/closed_loop/closed_loop_options.h"
#include "tools/closed_loop/closed_loop_results.h"
#include "tools/closed_loop/event_loop.h"
#include "tools/closed_loop/pair_run.h"
#include "tools/common/commands.h"
#include "tools/common/print.h"
#include "tools/common/results.h"
#include "tools/common/stopwatch.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

void run_pairs(const ClosedLoopOptions& options) {
  EventLoop events;
  const fs::path root = result_folder(options);
  print(stderr, "closed-loop: results in {}\n", root.string());
  const auto pairs = options.formats.pairs();
  std::vector<Json> entries;
  Stopwatch clock;
  double spent = 0;
  std::size_t measured = 0;
  for (const auto& [input_fmt, output_fmt] : pairs) {
    const fs::path folder = root / pair_folder(input_fmt, output_fmt);
    std::optional<Json> entry = earlier_entry(folder);
    const bool is_earlier = entry.has_value();
    if (!is_earlier) {
      clock.lap();
      try {
        entry = run_pair(events, options, folder, input_fmt, output_fmt);
      } catch (const CLI::ValidationError&) {
        if (entries.empty() && !options.resume) fs::remove_all(root);  // it is new and empty
        throw;
      }
      protocol::write_whole(folder / "result.json", text_of(*entry));
      spent += clock.lap();
      ++measured;
    }
    entries.push_back(std::move(*entry));
    write_pair_summary(root, entries);
    if (events.interrupted()) throw std::runtime_error("interrupted; --resume continues");
    const double left =
        measured == 0 ? 0 : spent / static_cast<double>(measured) * static_cast<double>(pairs.size() - entries.size());
    print(stderr, "closed-loop: {} of {}, {}: {}; {:.0f} s left\n", entries.size(), pairs.size(),
          folder.filename().string(), is_earlier ? "done already" : outcome(entries.back()), left);
  }
  print_pairs(entries);
  if (const auto failed = std::ranges::count_if(entries, has_error); failed > 0) {
    throw std::runtime_error(fmt::format("{} of {} pairs had errors, which {} names; --resume runs these again", failed,
                                         pairs.size(), (root / "summary.json").string()));
  }
}

}  // namespace

void add_closed_loop(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "closed-loop", "Serve pairs of formats one after the other and run a simulator's episodes against each");
  command->footer(
      "All other options go to pi0-server, whose --help explains them: --config, --checkpoint-dir, ...\n\n"
      "Example:\n"
      "  pi0 closed-loop --config pi05_droid --checkpoint-dir DIR --input-fmts float8_e4m3,bfloat16 --output-fmts "
      "float16 \\\n"
      "    --eval-command 'python eval.py --port {port} --scene {scene} --out {output_dir}'");
  const auto options = std::make_shared<ClosedLoopOptions>();
  add_closed_loop_options(*command, *options);
  command->callback([options, command] {
    settle(*options, *command);
    run_pairs(*options);
  });
}

}  // namespace pi0::tools
