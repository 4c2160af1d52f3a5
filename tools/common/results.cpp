#include "tools/common/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "model/json_fields.h"
#include "protocol/files.h"
#include "tools/common/csv.h"

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
  for (const char* key : {"action_rmse", "action_rmse_floor", "action_rel_rmse", "action_rel_rmse_floor",
                          "action_rmse_se", "action_cosine", "action_cosine_worst", "worst_observation_rmse",
                          "action_rmse_robot", "action_rmse_arm", "action_rmse_gripper", "inference_time_s"}) {
    fields.number_or_null(key);
  }
  for (const char* key : {"weight_bits", "weight_bytes"}) fields.number_or_null(key);
  if (!fields.value("below_floor").is_null()) fields.flag("below_floor");
  fields.text("worst_observation");
  for (const char* key : {"action_rmse_by_dimension", "action_rmse_by_step", "velocity_rmse_by_denoise_step"}) {
    fields.numbers(key);
  }
  if (!fields.value("action_rmse_by_step_and_dimension").is_array()) {
    fields.mistyped("action_rmse_by_step_and_dimension", "a list");
  }
  for (const char* key : {"nonfinite_observations", "n_observations"}) fields.whole(key);
  for (const char* key : {"components", "components_rel_rmse", "components_attention", "components_attention_rel_rmse",
                          "action_rmse_by_joint"}) {
    fields.named_numbers(key);
  }
  for (const char* key :
       {"components_kv_cache", "components_kv_cache_rel_rmse", "components_vector", "components_vector_rel_rmse"}) {
    if (fields.has(key)) fields.named_numbers(key);
  }
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

std::string rules_folder(const fs::path& rules) { return "rules__" + rules.stem().string(); }

std::string setting_name(const Json& entry) {
  const auto text = [&](const char* key) {
    const Json value = entry.is_object() ? entry.value(key, Json()) : Json();
    return value.is_string() ? value.get<std::string>() : std::string();
  };
  if (const std::string rules = text("rules"); !rules.empty()) return "rules " + fs::path(rules).stem().string();
  if (text("combo") == unquantized_name) return unquantized_name;
  const std::string input = text("input_fmt"), output = text("output_fmt");
  if (input.empty() || output.empty()) return "";
  const std::string weight = text("weight_fmt"), kv_cache = text("kv_cache_fmt"), vector = text("vector_fmt");
  std::string name = input + " / " + output;
  if (!weight.empty()) name += ", weights " + weight;
  if (!kv_cache.empty()) name += ", KV cache " + kv_cache;
  if (!vector.empty()) name += ", vectors " + vector;
  if (entry.value("rotate", Json()) == true) name += ", rotated";
  for (const auto& [key, words] : {std::pair{"smooth", "smoothed by"}, {"clip", "clipped at"}}) {
    const Json value = entry.value(key, Json());
    if (value.is_number()) name += fmt::format(", {} {}", words, value.get<double>());
  }
  for (const char* key : {"accumulator", "noise"}) {
    if (const std::string value = text(key); !value.empty()) name += fmt::format(", {} {}", key, value);
  }
  return name;
}

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
    for (const char* key : {"weight_fmt", "kv_cache_fmt", "vector_fmt", "accumulator", "noise", "rules"}) {
      if (fields.has(key)) fields.text(key);
    }
    for (const char* key : {"smooth", "clip"}) {
      if (fields.has(key)) fields.number_or_null(key);
    }
    if (fields.has("rotate")) fields.flag("rotate");
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

namespace {

// Objects and lists of an entry whose numbers have a column each, and what their names begin with.
constexpr std::pair<const char*, const char*> spread_fields[] = {
    {"components", "rmse_"},
    {"components_rel_rmse", "rel_rmse_"},
    {"components_attention", "rmse_attention_"},
    {"components_attention_rel_rmse", "rel_rmse_attention_"},
    {"components_kv_cache", "rmse_kv_cache_"},
    {"components_kv_cache_rel_rmse", "rel_rmse_kv_cache_"},
    {"components_vector", "rmse_vector_"},
    {"components_vector_rel_rmse", "rel_rmse_vector_"},
    {"action_rmse_by_joint", "joint_rmse_"},
    {"velocity_rmse_by_denoise_step", "velocity_rmse_step_"},
};

// An entry as one row: its plain fields, then the spread ones.
Json flat(const Json& entry) {
  Json row = Json::object();
  for (const auto& [name, value] : entry.items()) {
    if (!value.is_structured()) row[name] = value;
  }
  for (const auto& [field, prefix] : spread_fields) {
    const Json values = entry.value(field, Json::object());
    for (const auto& [key, value] : values.items()) row[prefix + key] = value;  // of a list, the index is the key
  }
  return row;
}

}  // namespace

std::string table_of(const std::vector<Json>& entries) {
  std::vector<Json> rows;
  Json columns = Json::object();  // keeps the order in which names are added
  for (const Json& entry : entries) {
    for (const auto& [name, value] : rows.emplace_back(flat(entry)).items()) columns[name] = nullptr;
  }
  std::vector<Json> header;
  for (const auto& [name, unused] : columns.items()) header.emplace_back(name);
  std::string csv = csv_line(header);
  for (const Json& row : rows) {
    std::vector<Json> fields;
    for (const Json& name : header) fields.push_back(row.value(name.get<std::string>(), Json()));
    csv += csv_line(fields);
  }
  return csv;
}

}  // namespace pi0::tools
