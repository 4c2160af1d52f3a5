#include "tools/closed_loop/closed_loop_results.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <ctime>
#include <stdexcept>
#include <string_view>

#include "model/json_fields.h"
#include "model/text_file.h"
#include "protocol/files.h"
#include "tools/closed_loop/simulator.h"
#include "tools/common/print.h"
#include "tools/common/results.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// What the results of one run share.
Json settings_of(const ClosedLoopOptions& options) {
  return {{"server_arguments", options.server_arguments},
          {"eval_command", options.eval_command},
          {"scenes", options.scenes},
          {"episodes", options.episodes},
          {"success_regex", options.success_regex}};
}

bool is_timestamp(const std::string& name) {
  constexpr std::string_view shape = "0000-00-00_00-00-00";
  return name.size() == shape.size() && std::ranges::equal(name, shape, [](char found, char wanted) {
           return wanted == '0' ? std::isdigit(static_cast<unsigned char>(found)) != 0 : found == wanted;
         });
}

fs::path newest_folder(const fs::path& output) {
  fs::path newest;
  for (const fs::directory_entry& entry : fs::directory_iterator(output)) {
    if (is_timestamp(entry.path().filename().string())) newest = std::max(newest, entry.path());
  }
  if (newest.empty()) throw std::runtime_error(output.string() + ": has no earlier results to --resume");
  return newest;
}

void check_settings(const fs::path& folder, const Json& wanted) {
  const fs::path file = folder / "settings.json";
  const Json earlier = model::read_json(file);
  model::JsonFields fields(earlier, file.string());
  for (const auto& [key, value] : wanted.items()) fields.value(key);
  fields.finish();
  check_same_settings(folder, earlier, "this closed loop", wanted);
}

Json mean_success(const Json& by_scene) {
  double sum = 0;
  int count = 0;
  for (const Json& scene : by_scene) {
    if (!scene["success_rate"].is_number()) continue;
    sum += scene["success_rate"].get<double>();
    ++count;
  }
  return count == 0 ? Json() : Json(sum / count);
}

// The mean RMSE of each component into `rmse`. Throws JsonFileError that names the file and what is wrong in it.
void read_component_rmse(const fs::path& stats, Json& rmse) {
  const Json statistics = model::read_json(stats);
  model::JsonFields fields(statistics, stats.string());
  for (model::JsonFields& row : fields.rows("components")) {
    rmse[row.text("component")] = row.number_or_null("mean_rmse");
  }
}

}  // namespace

fs::path result_folder(const ClosedLoopOptions& options) {
  fs::create_directories(options.output);
  const Json settings = settings_of(options);
  if (options.resume) {
    fs::path newest = newest_folder(options.output);
    check_settings(newest, settings);
    return newest;
  }
  fs::path root = options.output / fmt::format("{:%Y-%m-%d_%H-%M-%S}", fmt::localtime(std::time(nullptr)));
  if (!fs::create_directory(root)) throw std::runtime_error(root.string() + ": exists already");
  protocol::write_whole(root / "settings.json", text_of(settings));
  return root;
}

void add_outcome(Json& entry, const fs::path& folder, const fs::path& stats, const std::string& log) {
  entry["success_rate"] = mean_success(entry["by_scene"]);
  entry["video_dir"] = (folder / "videos").string();
  entry["video_files"] = Json::array();
  for (const auto& [video, written] : videos_under(folder / "videos")) entry["video_files"].push_back(video.string());
  constexpr std::size_t kept = 4000;  // characters, as pi0-quant
  protocol::write_whole(folder / "eval_results.json", text_of({{"success_rate", entry["success_rate"]},
                                                               {"by_scene", entry["by_scene"]},
                                                               {"eval_log", log.substr(0, kept)},
                                                               {"video_dir", entry["video_dir"]},
                                                               {"video_files", entry["video_files"]}}));
  entry["component_rmse"] = Json::object();
  entry["rmse_stats_path"] = stats.string();
  std::string error;
  if (!fs::exists(stats)) {
    error = "the server left no statistics";
  } else {
    try {
      read_component_rmse(stats, entry["component_rmse"]);
    } catch (const model::JsonFileError& unreadable) {  // of another program, named by --server: costs only this pair
      error = unreadable.what();
    }
  }
  if (!error.empty() && !entry.contains("error")) entry["error"] = error;
}

std::optional<Json> earlier_entry(const fs::path& folder) {
  const fs::path file = folder / "result.json";
  if (!fs::exists(file)) return std::nullopt;
  Json entry = read_pair(file);
  if (entry["combo"] != folder.filename().string()) {
    throw std::runtime_error(fmt::format("{}: is of the pair {}, expected {}", file.string(),
                                         model::shown(entry["combo"]), folder.filename().string()));
  }
  if (has_error(entry)) return std::nullopt;
  return entry;
}

bool has_error(const Json& entry) {
  return entry.contains("error") ||
         std::ranges::any_of(entry["by_scene"], [](const Json& scene) { return scene.contains("error"); });
}

std::string outcome(const Json& entry) {
  std::string text = entry["success_rate"].is_null()
                         ? "no success rate"
                         : fmt::format("success {:.2f}", entry["success_rate"].get<double>());
  if (entry.contains("error")) text += ", " + entry["error"].get<std::string>();
  for (const auto& [scene, result] : entry["by_scene"].items()) {
    if (result.contains("error")) text += fmt::format(", scene {}: {}", scene, result["error"].get<std::string>());
  }
  return text;
}

void write_pair_summary(const fs::path& root, const std::vector<Json>& entries) {
  std::vector<Json> rows;
  for (const Json& entry : entries) {
    Json row = entry;
    row["components"] = entry["component_rmse"];
    for (const auto& [scene, result] : entry["by_scene"].items()) {
      row["success_scene" + scene] = result["success_rate"];
    }
    rows.push_back(std::move(row));
  }
  protocol::write_whole(root / "summary.csv", table_of(rows));
  protocol::write_whole(root / "summary.json", text_of(entries));
}

void print_pairs(const std::vector<Json>& entries) {
  const auto figure = [](const Json& value, const char* format) {
    return value.is_number() ? fmt::format(fmt::runtime(format), value.get<double>()) : std::string("-");
  };
  print("{:13}{:13}{:>8}{:>13}{:>13}{:>15}{:>13}\n", "input", "output", "success", "vision", "language",
        "action_expert", "action_head");
  for (const Json& entry : entries) {
    print("{:13}{:13}{:>8}", entry["input_fmt"].get<std::string>(), entry["output_fmt"].get<std::string>(),
          figure(entry["success_rate"], "{:.2f}"));
    const Json& rmse = entry["component_rmse"];
    print("{:>13}{:>13}{:>15}{:>13}\n", figure(rmse.value("vision", Json()), "{:.3e}"),
          figure(rmse.value("language", Json()), "{:.3e}"), figure(rmse.value("action_expert", Json()), "{:.3e}"),
          figure(rmse.value("action_head", Json()), "{:.3e}"));
  }
}

}  // namespace pi0::tools
