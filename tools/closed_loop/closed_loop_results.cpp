#include "tools/closed_loop/closed_loop_results.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <ctime>
#include <fstream>
#include <stdexcept>
#include <string_view>

#include "model/json_fields.h"
#include "model/text_file.h"
#include "protocol/files.h"
#include "tools/closed_loop/served_setting.h"
#include "tools/closed_loop/success_statistics.h"
#include "tools/closed_loop/videos.h"
#include "tools/common/format_fields.h"
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
          {"success", to_json(options.success)}};
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

// The rules of success may change: logs are read again. Returns those of the earlier run.
SuccessRules check_settings(const fs::path& folder, Json wanted) {
  const fs::path file = folder / "settings.json";
  Json earlier = model::read_json(file);
  model::JsonFields fields(earlier, file.string());
  for (const auto& [key, value] : wanted.items()) fields.value(key);
  fields.finish();
  SuccessRules rules = success_rules_from(fields.any_object("success"), file.string() + ": success");
  wanted.erase("success");
  earlier.erase("success");
  check_same_settings(folder, earlier, "this closed loop", wanted);
  return rules;
}

// As much of a log as pi0-quant keeps; nothing without one.
std::string beginning_of(const fs::path& log) {
  std::string text(4000, '\0');
  std::ifstream file(log, std::ios::binary);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

bool is_sound(const Json& scene) { return !scene.contains("error") && !scene.contains("success_error"); }

Json mean_success(const Json& by_scene) {
  double sum = 0;
  int count = 0;
  for (const Json& scene : by_scene) {
    if (!is_sound(scene) || !scene["success_rate"].is_number()) continue;
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

// A scene's name as part of a file's name: '/', '%' and a leading '.' are written as in a URL.
std::string file_name_of(const std::string& scene) {
  std::string name;
  for (const char c : scene) {
    const bool is_plain = c != '/' && c != '%' && c != '\0' && (c != '.' || !name.empty());
    name += is_plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return name;
}

// Whether something did not run to its end.
bool has_failed(const Json& entry) {
  return entry.contains("error") ||
         std::ranges::any_of(entry["by_scene"], [](const Json& scene) { return scene.contains("error"); });
}

// Where episodes can be counted. Those of a scene with an error say nothing about the policy.
bool has_counts(const Json& scene) {
  return is_sound(scene) && scene["n_success"].is_number() && scene["n_episodes"].get<long>() > 0;
}

void add_rate(Json& result, long succeeded, long episodes) {
  const auto [low, high] = wilson_interval(succeeded, episodes);
  result["success_low"] = low;
  result["success_high"] = high;
}

void add_mean(Json& result, const std::string& name, const std::vector<double>& values) {
  if (values.empty()) return;
  const Mean mean = mean_of(values);
  result[name] = mean.value;
  if (!mean.interval) return;
  result[name + "_low"] = mean.interval->first;
  result[name + "_high"] = mean.interval->second;
}

// A list of each scene, one after the other.
template <class Value>
std::vector<Value> joined(const Json& entry, const char* key) {
  std::vector<Value> all;
  for (const Json& scene : entry["by_scene"]) {
    if (!is_sound(scene) || !scene.contains(key)) continue;
    for (const Json& value : scene[key]) all.push_back(value.get<Value>());
  }
  return all;
}

// The lists of both, one after the other, of the scenes in which both have one of the same length and no error.
template <class Value>
std::pair<std::vector<Value>, std::vector<Value>> paired(const Json& first, const Json& second, const char* key) {
  std::pair<std::vector<Value>, std::vector<Value>> all;
  for (const auto& [scene, result] : first["by_scene"].items()) {
    if (!is_sound(result) || !result.contains(key) || !second["by_scene"].contains(scene)) continue;
    const Json& other = second["by_scene"][scene];
    if (!is_sound(other) || !other.contains(key) || other[key].size() != result[key].size()) continue;
    for (const Json& value : result[key]) all.first.push_back(value.get<Value>());
    for (const Json& value : other[key]) all.second.push_back(value.get<Value>());
  }
  return all;
}

// Where the other scenes of a setting say how their episodes went, one that does not is an error: totals over different
// scenes cannot be compared.
void refuse_silent_scenes(Json& by_scene) {
  const bool is_known = std::ranges::any_of(by_scene, has_counts);
  for (Json& scene : by_scene) {
    if (is_known && is_sound(scene) && !has_counts(scene)) scene["success_error"] = "no success was found in it";
  }
}

const Json* baseline_of(const std::vector<Json>& entries) {
  for (const std::string& name : {std::string(unquantized_name), folder_of({})}) {
    const auto found = std::ranges::find_if(entries, [&](const Json& entry) { return entry["combo"] == name; });
    if (found != entries.end()) return &*found;
  }
  return nullptr;
}

std::string figure(const Json& value, const char* format) {
  return value.is_number() ? fmt::format(fmt::runtime(format), value.get<double>()) : std::string("-");
}

}  // namespace

fs::path result_folder(ClosedLoopOptions& options) {
  fs::create_directories(options.output);
  fs::path root;
  if (options.resume) {
    root = newest_folder(options.output);
    SuccessRules earlier = check_settings(root, settings_of(options));
    if (!options.has_rules) options.success = std::move(earlier);
  } else {
    root = options.output / fmt::format("{:%Y-%m-%d_%H-%M-%S}", fmt::localtime(std::time(nullptr)));
    if (!fs::create_directory(root)) throw std::runtime_error(root.string() + ": exists already");
  }
  return root;
}

fs::path scene_log(const fs::path& folder, const std::string& scene) {
  return folder / fmt::format("eval_scene{}.log", file_name_of(scene));
}

fs::path scene_output(const fs::path& folder, const std::string& scene) {
  return fs::absolute(folder / "videos" / ("scene" + file_name_of(scene)));
}

void write_settings(const fs::path& root, const ClosedLoopOptions& options) {
  protocol::write_whole(root / "settings.json", text_of(settings_of(options)));
}

void add_outcomes(Json& result, const Outcomes& outcomes) {
  if (outcomes.succeeded) {
    result["n_success"] = *outcomes.succeeded;
    result["n_episodes"] = *outcomes.episodes;
    if (*outcomes.episodes > 0) {
      result["success_rate"] = static_cast<double>(*outcomes.succeeded) / static_cast<double>(*outcomes.episodes);
      add_rate(result, *outcomes.succeeded, *outcomes.episodes);
    }
  }
  if (!outcomes.by_episode.empty()) result["episodes"] = outcomes.by_episode;
  if (!outcomes.scores.empty()) result["scores"] = outcomes.scores;
  add_mean(result, "score_mean", outcomes.scores);
}

void add_statistics(Json& entry, const fs::path& stats) {
  entry["component_rmse"] = Json::object();
  entry["rmse_stats_path"] = stats.string();
  std::string error;
  if (entry["combo"] == unquantized_name) {
    entry["rmse_stats_path"] = nullptr;
  } else if (!fs::exists(stats)) {
    error = "the server left no statistics";
  } else {
    try {
      read_component_rmse(stats, entry["component_rmse"]);
    } catch (const model::JsonFileError& unreadable) {  // of another program, named by --server: costs only this
      error = unreadable.what();
    }
  }
  if (!error.empty() && !entry.contains("error")) entry["error"] = error;
}

void add_totals(Json& entry, const fs::path& folder) {
  refuse_silent_scenes(entry["by_scene"]);
  entry["success_rate"] = mean_success(entry["by_scene"]);
  long succeeded = 0, episodes = 0;
  for (const Json& scene : entry["by_scene"]) {
    if (!has_counts(scene)) continue;
    succeeded += scene["n_success"].get<long>();
    episodes += scene["n_episodes"].get<long>();
  }
  entry["n_success"] = episodes == 0 ? Json() : Json(succeeded);
  entry["n_episodes"] = episodes;
  for (const char* key : {"success_low", "success_high", "score_mean", "score_mean_low", "score_mean_high"}) {
    entry[key] = nullptr;
  }
  if (episodes > 0) add_rate(entry, succeeded, episodes);
  add_mean(entry, "score_mean", joined<double>(entry, "scores"));
  entry["video_dir"] = (folder / "videos").string();
  entry["video_files"] = Json::array();
  for (const auto& [video, written] : videos_under(folder / "videos")) entry["video_files"].push_back(video.string());
  fs::path log;  // of the last scene that ran
  for (const auto& [scene, result] : entry["by_scene"].items()) {
    if (fs::path file = scene_log(folder, scene); fs::exists(file)) log = std::move(file);
  }
  protocol::write_whole(folder / "eval_results.json", text_of({{"success_rate", entry["success_rate"]},
                                                               {"by_scene", entry["by_scene"]},
                                                               {"eval_log", beginning_of(log)},
                                                               {"video_dir", entry["video_dir"]},
                                                               {"video_files", entry["video_files"]}}));
}

std::optional<Json> earlier_entry(const fs::path& folder) {
  const fs::path file = folder / "result.json";
  if (!fs::exists(file)) return std::nullopt;
  Json entry = read_closed_loop_entry(file);
  if (entry["combo"] != folder.filename().string()) {
    throw std::runtime_error(fmt::format("{}: is of the setting {}, expected {}", file.string(),
                                         model::shown(entry["combo"]), folder.filename().string()));
  }
  // How its episodes went may be read by other rules now; what did not run must run again.
  if (has_failed(entry)) return std::nullopt;
  return entry;
}

bool has_error(const Json& entry) {
  return has_failed(entry) ||
         std::ranges::any_of(entry["by_scene"], [](const Json& scene) { return scene.contains("success_error"); });
}

std::string errors_of(const Json& entry) {
  std::string text = entry.value("error", "");
  for (const auto& [scene, result] : entry["by_scene"].items()) {
    for (const char* key : {"error", "success_error"}) {
      if (!result.contains(key)) continue;
      text += (text.empty() ? "" : ", ") + fmt::format("scene {}: {}", scene, result[key].get<std::string>());
    }
  }
  return text;
}

std::string outcome(const Json& entry) {
  std::string text = !entry["n_success"].is_number()
                         ? "no success rate"
                         : fmt::format("success {} of {} ({:.2f} to {:.2f})", entry["n_success"].get<long>(),
                                       entry["n_episodes"].get<long>(), entry["success_low"].get<double>(),
                                       entry["success_high"].get<double>());
  if (entry["score_mean"].is_number()) text += fmt::format(", score {:.4g}", entry["score_mean"].get<double>());
  const std::string errors = errors_of(entry);
  return errors.empty() ? text : text + ", " + errors;
}

void add_comparisons(std::vector<Json>& entries) {
  const Json* const baseline = baseline_of(entries);
  if (baseline == nullptr) return;
  for (Json& entry : entries) {
    if (&entry == baseline) continue;
    entry["baseline"] = (*baseline)["combo"];
    if (const auto [before, now] = paired<bool>(*baseline, entry, "episodes"); !now.empty()) {
      const PairedTest test = mcnemar_test(before, now);
      entry["paired_episodes"] = now.size();
      entry["only_baseline"] = test.only_first;
      entry["only_this"] = test.only_second;
      entry["mcnemar_p"] = test.p;
    }
    auto [before, changes] = paired<double>(*baseline, entry, "scores");
    for (std::size_t i = 0; i < changes.size(); ++i) changes[i] -= before[i];
    add_mean(entry, "score_change", changes);
  }
}

void write_closed_loop_summary(const fs::path& root, const std::vector<Json>& entries) {
  std::vector<Json> rows;
  for (const Json& entry : entries) {
    Json row = entry;
    row["components"] = entry["component_rmse"];
    if (const std::string errors = errors_of(entry); !errors.empty()) row["error"] = errors;
    for (const auto& [scene, result] : entry["by_scene"].items()) {
      row["success_scene" + scene] = result["success_rate"];
    }
    rows.push_back(std::move(row));
  }
  protocol::write_whole(root / "summary.csv", table_of(rows));
  protocol::write_whole(root / "summary.json", text_of(entries));
}

void print_settings(const std::vector<Json>& entries) {
  std::size_t width = 7;
  for (const Json& entry : entries) width = std::max(width, setting_name(entry).size());
  const auto any = [&](const char* key) {
    return std::ranges::any_of(entries, [&](const Json& entry) { return entry.value(key, Json()).is_number(); });
  };
  const bool has_score = any("score_mean"), has_test = any("mcnemar_p");
  print("{:{}}{:>9}{:>11}{:>14}", "setting", width, "success", "episodes", "95 %");
  if (has_test) print("{:>9}", "p");
  if (has_score) print("{:>11}{:>20}", "score", "95 %");
  print("{:>12}{:>12}{:>15}{:>13}\n", "vision", "language", "action_expert", "action_head");
  for (const Json& entry : entries) {
    const bool counted = entry["n_success"].is_number();
    print("{:{}}{:>9}{:>11}{:>14}", setting_name(entry), width, figure(entry["success_rate"], "{:.2f}"),
          counted ? fmt::format("{}/{}", entry["n_success"].get<long>(), entry["n_episodes"].get<long>()) : "-",
          counted ? figure(entry["success_low"], "{:.2f}") + " to " + figure(entry["success_high"], "{:.2f}") : "-");
    if (has_test) print("{:>9}", figure(entry.value("mcnemar_p", Json()), "{:.3f}"));
    if (has_score) {
      const Json& low = entry["score_mean_low"];
      print("{:>11}{:>20}", figure(entry["score_mean"], "{:.4g}"),
            low.is_number() ? figure(low, "{:.4g}") + " to " + figure(entry["score_mean_high"], "{:.4g}") : "-");
    }
    const Json& rmse = entry["component_rmse"];
    const auto component = [&](const char* name) { return figure(rmse.value(name, Json()), "{:.2e}"); };
    print("{:>12}{:>12}{:>15}{:>13}\n", component("vision"), component("language"), component("action_expert"),
          component("action_head"));
  }
  for (const Json& entry : entries) {
    if (has_error(entry)) print("{}: {}\n", setting_name(entry), errors_of(entry));
  }
  if (!has_test) return;
  const Json& baseline = *baseline_of(entries);
  print("p: McNemar's exact test against {}, over the same episodes\n", baseline["combo"].get<std::string>());
  for (const Json& entry : entries) {
    if (!entry.contains("paired_episodes") || entry["paired_episodes"] == baseline["n_episodes"]) continue;
    print("{}: p is of the {} episodes that both have\n", setting_name(entry), entry["paired_episodes"].get<long>());
  }
}

}  // namespace pi0::tools
