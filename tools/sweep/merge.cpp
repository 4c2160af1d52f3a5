// pi0 merge: joins the results of a sweep that several runs shared, and writes its summary.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/json_fields.h"
#include "model/text_file.h"
#include "protocol/files.h"
#include "tools/common/commands.h"
#include "tools/common/results.h"
#include "tools/sweep/summary.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct MergeOptions {
  std::vector<fs::path> shards;
  fs::path output;
};

// A result's meta without the setting's names.
Json shared_meta(const SweepResult& result) {
  Json meta = result.meta;
  for (const auto& [key, value] : result.names.items()) meta.erase(key);
  return meta;
}

void check_same_sweep(const fs::path& file, const SweepResult& result, const fs::path& other_file,
                      const SweepResult& other) {
  if (result.of != other.of) {
    throw std::runtime_error(fmt::format("{}: is of a sweep of {} settings, {} of one of {}", file.string(), result.of,
                                         other_file.string(), other.of));
  }
  check_same_settings(file, shared_meta(result), other_file.string(), shared_meta(other));
}

void merge(const MergeOptions& options) {
  std::map<std::size_t, std::pair<fs::path, SweepResult>> results;
  for (const fs::path& shard : options.shards) {
    for (const fs::directory_entry& entry : fs::directory_iterator(shard)) {
      const fs::path file = entry.path() / "result.json";
      if (!fs::is_regular_file(file)) continue;
      if (const fs::path stats = entry.path() / "stats.json"; !fs::is_regular_file(stats)) {
        throw std::runtime_error(stats.string() + ": is missing, or no file; it belongs to " + file.string());
      }
      SweepResult result = read_result(file);
      if (!results.empty()) {
        const auto& [other_file, other] = results.begin()->second;
        check_same_sweep(file, result, other_file, other);
      }
      const std::size_t place = result.place;
      const auto [found, is_new] = results.emplace(place, std::pair(file, std::move(result)));
      if (!is_new && !fs::equivalent(found->second.first, file)) {
        throw std::runtime_error(file.string() + ": exists twice, also in " + found->second.first.string());
      }
    }
  }
  if (results.empty()) throw std::runtime_error("the folders hold no results of a sweep");
  const std::size_t of = results.begin()->second.second.of;
  if (results.size() != of) {
    throw std::runtime_error(
        fmt::format("{} of {} settings are missing; run their shards with --resume", of - results.size(), of));
  }
  std::vector<Json> entries;
  fs::create_directories(options.output);
  for (const auto& [place, found] : results) {
    const fs::path from = found.first.parent_path(), to = options.output / from.filename();
    entries.push_back(found.second.entry);
    if (fs::weakly_canonical(from) == fs::weakly_canonical(to)) continue;
    fs::create_directories(to);
    for (const char* name : {"stats.json", "result.json"}) {
      protocol::write_whole(to / name, model::read_file(from / name));
    }
  }
  write_summary(options.output, entries);
}

}  // namespace

void add_merge(CLI::App& app) {
  CLI::App* command = app.add_subcommand("merge", "Join the results of pi0 sweep --shard to one sweep");
  command->footer("Example:\n  pi0 merge machine1/sweep machine2/sweep --output sweep");
  const auto options = std::make_shared<MergeOptions>();
  command->add_option("shards", options->shards, "Folders that the shards wrote; may be one for all")
      ->required()
      ->check(CLI::ExistingDirectory);
  command->add_option("--output", options->output, "Folder of the whole sweep; may be one of them")->required();
  command->callback([options] { merge(*options); });
}

}  // namespace pi0::tools
