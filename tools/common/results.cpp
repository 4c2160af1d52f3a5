#include "tools/common/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "model/json_fields.h"
#include "protocol/files.h"
#include "tools/common/csv.h"
#include "tools/common/print.h"

namespace pi0::tools {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using model::JsonFields;

namespace {

// An entry of a sweep, as SweepRun::measure() makes it.
void check_entry(JsonFields fields, const Json& names) {
  for (const auto& [name, value] : names.items()) {
    if (fields.value(name) != value) fields.mistyped(name, model::shown(value) + ", as 'names' has it");
  }
  for (const char* key : {"action_rmse", "action_rmse_robot", "inference_time_s"}) fields.number_or_null(key);
  for (const char* key : {"action_rmse_by_dimension", "action_rmse_by_step"}) fields.numbers(key);
  if (!fields.value("action_rmse_by_step_and_dimension").is_array()) {
    fields.mistyped("action_rmse_by_step_and_dimension", "a list");
  }
  for (const char* key : {"nonfinite_observations", "n_observations"}) fields.whole(key);
  for (const char* key : {"components", "components_attention"}) fields.named_numbers(key);
  fields.finish();
}

template <class Read>
auto read_strictly(const fs::path& file, Read read) {
  try {
    const Json content = model::read_json(file);
    return read(content, JsonFields(content, file.string()));
  } catch (const model::JsonFileError& error) {
    throw std::runtime_error(std::string(error.what()) + "; remove the file to measure this again");
  }
}

}  // namespace

std::string pair_folder(const std::string& input_fmt, const std::string& output_fmt) {
  return input_fmt + "__" + output_fmt;
}

std::string rules_folder(const fs::path& rules) { return "rules__" + rules.stem().string(); }

void check_same_settings(const fs::path& place, const Json& found, const std::string& other, const Json& wanted) {
  Json all = wanted;
  all.update(found);
  for (const auto& [key, unused] : all.items()) {
    const Json here = found.value(key, Json()), there = wanted.value(key, Json());
    if (here == there) continue;
    throw std::runtime_error(fmt::format("{}: was measured with {} {}, {} with {}", place.string(), key,
                                         model::shown(here), other, model::shown(there)));
  }
}

std::string text_of(const Json& content) {
  return content.dump(1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + "\n";
}

void write_result(const fs::path& folder, const SweepResult& result) {
  const Json content = {{"meta", result.meta},
                        {"names", result.names},
                        {"entry", result.entry},
                        {"place", result.place},
                        {"of", result.of}};
  protocol::write_whole(folder / "result.json", text_of(content));
}

SweepResult read_result(const fs::path& file) {
  return read_strictly(file, [](const Json& content, JsonFields fields) {
    SweepResult result;
    result.meta = fields.any_object("meta");
    result.names = fields.any_object("names");
    check_entry(fields.object("entry"), result.names);
    result.entry = content["entry"];
    result.of = static_cast<std::size_t>(fields.count("of"));
    result.place = static_cast<std::size_t>(fields.whole("place"));
    if (result.place >= result.of) fields.mistyped("place", fmt::format("less than 'of', {}", result.of));
    fields.finish();
    return result;
  });
}

namespace {

// What a closed loop says of the episodes of a scene or of all.
void check_episodes(JsonFields& fields) {
  for (const char* key : {"n_success", "n_episodes", "success_rate", "success_low", "success_high", "score_mean"}) {
    fields.number_or_null(key);
  }
  for (const char* key : {"score_mean_low", "score_mean_high"}) {
    if (fields.has(key)) fields.number_or_null(key);
  }
  if (fields.has("error")) fields.text("error");
}

void check_scene(JsonFields fields) {
  check_episodes(fields);
  if (fields.has("success_error")) fields.text("success_error");
  if (fields.has("requests")) fields.named_numbers("requests");
  if (fields.has("episodes")) fields.flags("episodes");
  if (fields.has("scores")) fields.numbers("scores");
  fields.finish();
}

}  // namespace

Json read_closed_loop_entry(const fs::path& file) {
  return read_strictly(file, [&](const Json& content, JsonFields fields) {
    for (const char* key : {"combo", "video_dir"}) fields.text(key);
    for (const char* key : {"input_fmt", "output_fmt", "rmse_stats_path"}) {
      if (!fields.value(key).is_null()) fields.text(key);
    }
    if (fields.has("rules")) fields.text("rules");
    check_episodes(fields);
    fields.named_numbers("component_rmse");
    if (!fields.value("video_files").is_array()) fields.mistyped("video_files", "a list");
    for (const auto& [scene, result] : fields.any_object("by_scene").items()) {
      check_scene({result, file.string() + ".by_scene." + scene});
    }
    fields.finish();
    return content;
  });
}

std::string table_of(const std::vector<Json>& entries) {
  std::vector<std::string> columns, components;
  const auto note = [](std::vector<std::string>& names, const std::string& name) {
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  };
  for (const Json& entry : entries) {
    for (const auto& [name, value] : entry.items()) {
      if (!value.is_structured()) note(columns, name);
    }
    for (const auto& [name, value] : entry["components"].items()) note(components, name);
  }
  std::vector<Json> header(columns.begin(), columns.end());
  for (const std::string& name : components) header.push_back("rmse_" + name);
  std::string csv = csv_line(header);
  for (const Json& entry : entries) {
    std::vector<Json> fields;
    for (const std::string& name : columns) fields.push_back(entry.value(name, Json()));
    for (const std::string& name : components) fields.push_back(entry["components"].value(name, Json()));
    csv += csv_line(fields);
  }
  return csv;
}

void write_summary(const fs::path& folder, const std::vector<Json>& entries) {
  protocol::write_whole(folder / "summary.csv", table_of(entries));
  protocol::write_whole(folder / "summary.json", text_of(entries));
  print(stderr, "sweep: {} in {}\n", counted(entries.size(), "setting"), (folder / "summary.json").string());
}

}  // namespace pi0::tools
