#include "tools/report/report_data.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <re2/re2.h>

#include <algorithm>
#include <map>
#include <stdexcept>

#include "model/json_fields.h"
#include "model/text_file.h"
#include "quant/layer_place.h"
#include "tools/bench/bench_report.h"
#include "tools/common/format_fields.h"
#include "tools/common/results.h"
#include "tools/report/report_columns.h"
#include "tools/report/result_fields.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using model::JsonFields;

Json read(const fs::path& file) {
  return model::parse_json(model::without_python_numbers(model::read_file(file)), file.string());
}

// The bits of a value by role; of weights on average where the entry names no formats.
Json bits_in(const Json& entry) {
  const auto formats = formats_in(entry);
  if (!formats) return {{"weight_bits", entry.value("weight_bits", Json())}};
  return {{"input_bits", bits_per_value(formats->as_operand(formats->input))},
          {"weight_bits", bits_per_value(formats->as_operand(formats->weight))},
          {"output_bits", bits_per_value(formats->output)}};
}

// The formats that an entry names, by role.
Json formats_of(JsonFields& entry) {
  Json names = Json::object();
  for (const char* key : format_keys) names[key] = text_in(entry, key);
  names["rotate"] = flag_in(entry, "rotate");
  for (const char* key : {"smooth", "clip", "weight_bits"}) names[key] = number_in(entry, key);
  return names;
}

// pi0-quant's statistics do not name their formats; the names of their files or folders do.
Json pair_in(const std::string& name) {
  static const RE2 pair("(float[0-9a-z_]*?|bfloat16)__(float[0-9a-z_]*?|bfloat16)(?:__|$)");
  std::string input, output;
  if (!RE2::PartialMatch(name, pair, &input, &output)) return {};
  return {{"input_fmt", input}, {"output_fmt", output}};
}

bool is_statistics(const Json& content) {
  return content.is_object() && content.contains("layers") && content.contains("components");
}

Json scene_error(JsonFields& scene) {
  Json error = text_in(scene, "error");
  return error.is_null() ? text_in(scene, "success_error") : error;
}

class Reader {
 public:
  Reader() {
    for (ReportTable table : empty_tables()) {
      const std::string name = table.name;
      tables_.emplace(name, data_.tables.size());
      data_.tables.push_back(std::move(table));
    }
  }

  void read_result(const fs::path& given) {
    path_ = given.has_filename() ? given : given.parent_path();
    name_ = path_.filename().string();
    const bool is_known = std::ranges::any_of(data_.runs, [&](const Json& run) { return run["name"] == name_; });
    if (is_known) name_ = path_.string();
    data_.runs.push_back({{"name", name_}, {"kind", ""}, {"source", path_.string()}, {"meta", Json::object()}});
    if (!fs::exists(path_)) throw std::runtime_error(path_.string() + ": does not exist");
    fs::is_directory(path_) ? read_folder() : read_file();
  }

  ReportData result() {
    std::erase_if(data_.tables, [](const ReportTable& table) { return table.rows.empty(); });
    return std::move(data_);
  }

 private:
  void add(const char* table, std::vector<Json> row) { data_.tables[tables_.at(table)].rows.push_back(std::move(row)); }

  // A row by its columns' names; null in the others.
  void add_named(const char* table, const Json& fields) {
    ReportTable& place = data_.tables[tables_.at(table)];
    std::vector<Json>& row = place.rows.emplace_back();
    for (const std::string& column : place.columns) row.push_back(fields.value(column, Json()));
  }

  // The columns that `row` does not have yet, which are all of numbers.
  void add_numbers(Json& row, JsonFields& fields, const char* table) const {
    for (const std::string& column : data_.tables[tables_.at(table)].columns) {
      if (!row.contains(column)) row[column] = number_in(fields, column.c_str());
    }
  }

  void read_folder() {
    const fs::path summary = path_ / "summary.json", sensitivity = path_ / "sensitivity.json";
    if (!fs::exists(summary) && !fs::exists(sensitivity)) {
      throw std::runtime_error(path_.string() +
                               ": found neither summary.json nor sensitivity.json, expected a folder "
                               "that pi0 sweep or closed-loop (one of its folders by time) wrote");
    }
    data_.runs.back()["kind"] = "sweep";
    if (fs::exists(summary)) {
      const Json entries = read(summary);
      if (!entries.is_array() || entries.empty()) {
        throw std::runtime_error(summary.string() + ": found no entries, expected a list with one per setting");
      }
      for (std::size_t i = 0; i < entries.size(); ++i) {
        read_setting(JsonFields(entries[i], fmt::format("{}: entry {}", summary.string(), i + 1)), summary);
      }
    }
    mark_frontier();
    if (fs::exists(sensitivity)) read_sensitivity(sensitivity);
  }

  // Settings that no other of the run beats in both bits and error.
  void mark_frontier() {
    ReportTable& table = data_.tables[tables_.at("settings")];
    const auto place = [&](const char* name) { return std::ranges::find(table.columns, name) - table.columns.begin(); };
    const auto bits = place("weight_bits"), error = place("action_rel_rmse"), is_on_it = place("on_frontier");
    std::map<std::pair<Json, Json>, std::vector<Json>*> rows;  // by bits and error
    for (auto& row : table.rows) {
      const bool has_both = row[bits].is_number() && row[error].is_number() && row[error] > 0;
      if (row[0] == name_ && has_both) rows.emplace(std::pair(row[bits], row[error]), &row);
    }
    Json least;
    for (auto& [key, row] : rows) {
      (*row)[is_on_it] = least.is_null() || key.second < least;
      if ((*row)[is_on_it] == true) least = key.second;
    }
  }

  void read_setting(JsonFields entry, const fs::path& summary) {
    const Json rules = text_in(entry, "rules");
    const Json combo = text_in(entry, "combo");  // of closed loops
    Json row = formats_of(entry);
    Json named = row;
    named.update({{"rules", rules}, {"combo", combo}});
    const std::string setting = setting_name(named);
    if (setting.empty()) {
      throw std::runtime_error(summary.string() + ": an entry has neither input_fmt and output_fmt nor rules");
    }
    const bool is_closed_loop = entry.has("by_scene") || !combo.is_null();
    if (is_closed_loop) data_.runs.back()["kind"] = "closed-loop";
    const std::string folder = !combo.is_null()    ? combo.get<std::string>()
                               : rules.is_string() ? rules_folder(rules.get<std::string>())
                                                   : folder_of(formats_in(row).value_or(quant::SiteFormats()));
    const fs::path stats = path_ / folder / "stats.json";
    const Json error = setting_error(entry, summary);
    row.update(bits_in(row));
    row.update({{"run", name_}, {"setting", setting}, {"error", error}, {"source", stats.string()}});
    row["below_floor"] = flag_in(entry, "below_floor");
    row["on_frontier"] = Json();  // see mark_frontier()
    row["worst_observation"] = text_in(entry, "worst_observation");
    add_numbers(row, entry, "settings");
    add_named("settings", row);
    read_action_errors(entry, setting);
    const Json scenes = object_in(entry, "by_scene");
    for (const auto& [scene, result] : scenes.items()) {
      JsonFields fields(result, fmt::format("{}: {}, scene {}", summary.string(), setting, scene));
      Json scene_row = {{"run", name_}, {"setting", setting}, {"scene", scene}, {"error", scene_error(fields)}};
      add_numbers(scene_row, fields, "success");
      add_named("success", scene_row);
    }
    // A pair whose server failed has none.
    if (is_closed_loop && !fs::exists(stats) && (!error.is_null() || object_in(entry, "component_rmse").empty()))
      return;
    read_statistics(read(stats), stats, setting);
  }

  // The setting's own error, and those of its scenes.
  static Json setting_error(JsonFields& entry, const fs::path& summary) {
    std::vector<std::string> errors;
    if (const Json own = text_in(entry, "error"); !own.is_null()) errors.push_back(own.get<std::string>());
    const Json scenes = object_in(entry, "by_scene");
    for (const auto& [scene, result] : scenes.items()) {
      JsonFields fields(result, fmt::format("{}: scene {}", summary.string(), scene));
      const Json error = scene_error(fields);
      if (!error.is_null()) errors.push_back(fmt::format("scene {}: {}", scene, error.get<std::string>()));
    }
    return errors.empty() ? Json() : Json(fmt::format("{}", fmt::join(errors, ", ")));
  }

  // Without a step, of all steps; without a dimension, of all dimensions.
  void read_action_errors(JsonFields& entry, const std::string& setting) {
    const Json by_dimension = numbers_in(entry, "action_rmse_by_dimension"),
               by_step = numbers_in(entry, "action_rmse_by_step");
    std::vector<Json> joints(by_dimension.size());  // null where the robot has no names
    const Json by_joint = object_in(entry, "action_rmse_by_joint");
    if (by_joint.size() == joints.size()) {
      joints.clear();
      for (const auto& [joint, unused] : by_joint.items()) joints.emplace_back(joint);
    }
    for (std::size_t i = 0; i < by_dimension.size(); ++i) {
      add("actions", {name_, setting, {}, i, joints[i], by_dimension[i]});
    }
    for (std::size_t i = 0; i < by_step.size(); ++i) add("actions", {name_, setting, i, {}, {}, by_step[i]});
    const Json velocity = numbers_in(entry, "velocity_rmse_by_denoise_step");
    for (std::size_t i = 0; i < velocity.size(); ++i) add("velocity", {name_, setting, i, velocity[i]});
    const char* const both = "action_rmse_by_step_and_dimension";
    if (!has(entry, both)) return;
    const Json& by_both = entry.value(both);
    if (!by_both.is_array()) entry.mistyped(both, "a list of lists");
    for (std::size_t step = 0; step < by_both.size(); ++step) {
      if (!by_both[step].is_array()) entry.mistyped(both, "a list of lists");
      for (std::size_t i = 0; i < by_both[step].size(); ++i) {
        add("actions", {name_, setting, step, i, i < joints.size() ? joints[i] : Json(), by_both[step][i]});
      }
    }
  }

  void read_components(JsonFields& fields, const char* key, const char* kind, const std::string& setting) {
    for (JsonFields& row : fields.rows(key)) {
      add("components", {name_, setting, kind, row.text("component"), number_in(row, "mean_rmse"),
                         number_in(row, "mean_rel_rmse"), number_in(row, "mean_operands_rel_rmse"),
                         number_in(row, "mean_accumulation_rel_rmse"), number_in(row, "mean_output_rel_rmse")});
    }
  }

  void read_statistics(const Json& content, const fs::path& file, const std::string& setting) {
    if (!is_statistics(content)) {
      throw std::runtime_error(file.string() + ": found no 'layers' and 'components', expected statistics");
    }
    JsonFields fields(content, file.string());
    const Json meta = object_in(fields, "meta");
    // What all settings of a run share; how it was run comes from the first.
    if (data_.runs.back()["meta"].empty()) data_.runs.back()["meta"] = meta;
    read_components(fields, "components", "linear", setting);
    for (const char* kind : {"attention", "kv_cache", "vector"}) {
      const std::string key = std::string("components_") + kind;
      if (has(fields, key.c_str())) read_components(fields, key.c_str(), kind, setting);
    }
    for (JsonFields& row : fields.rows("layers")) {
      const Json kind = text_in(row, "kind");
      const std::string layer = row.text("layer");
      const quant::LayerPlace place = quant::place_of(layer);  // pi0-quant's files do not say it
      add("layers", {name_, setting, kind.is_null() ? "linear" : kind, row.text("component"), layer,
                     place.block ? Json(*place.block) : Json(), place.matrix, number_in(row, "depth"),
                     number_in(row, "n_calls"), number_in(row, "rmse"), number_in(row, "rel_rmse"),
                     number_in(row, "nonfinite"), number_in(row, "operands_rel_rmse"),
                     number_in(row, "accumulation_rel_rmse"), number_in(row, "output_rel_rmse")});
    }
  }

  // An object whose keys are the layers that a budget left out; null without one.
  static Json layers_left_out(const fs::path& file) {
    if (!fs::exists(file)) return {};
    const Json budget = read(file);
    JsonFields fields(budget, file.string());
    Json layers = Json::object();
    if (!has(fields, "left_out")) return {};
    for (JsonFields& row : fields.rows("left_out")) layers[row.text("layer")] = true;
    return layers;
  }

  void read_sensitivity(const fs::path& file) {
    const Json ranking = read(file);
    if (!ranking.is_array()) throw std::runtime_error(file.string() + ": found no list, expected a ranking");
    const Json left_out = layers_left_out(path_ / "budget.json");
    std::size_t rank = 0;
    for (const Json& entry : ranking) {
      JsonFields fields(entry, fmt::format("{}: entry {}", file.string(), ++rank));
      const Json formats = formats_of(fields);
      const Json layer = text_in(fields, "layer"), component = text_in(fields, "component");
      const Json& name = layer.is_null() ? component : layer;
      if (name.is_null()) fields.refuse("has neither layer nor component");
      const char* const kind = layer.is_null() ? "component" : "layer";
      if (rank == 1) {
        const fs::path stats = path_ / (std::string(kind) + "s") / name.get<std::string>() / "stats.json";
        const Json statistics = read(stats);
        JsonFields stats_fields(statistics, stats.string());
        Json meta = object_in(stats_fields, "meta");
        for (const char* own : {"layer", "component", "kind"}) meta.erase(own);  // of this one, not of the run
        data_.runs.back()["meta"] = std::move(meta);
      }
      add("sensitivity", {name_, setting_name(formats), rank, kind, name, component, number_in(fields, "action_rmse"),
                          number_in(fields, "action_rmse_floor"), flag_in(fields, "below_floor"),
                          left_out.is_null() ? Json() : Json(left_out.contains(name.get<std::string>()))});
    }
  }

  // Settings that all modes of a bench share, the others by mode, and warnings.
  static Json settings_of_modes(const std::vector<Json>& records) {
    Json settings = Json::object();
    const Json& last = records.back()["settings"];
    for (auto entry = last.begin(); entry != last.end(); ++entry) {
      const std::string& key = entry.key();
      const Json& value = *entry;
      const auto value_in = [&](const Json& record) { return record["settings"].value(key, Json()); };
      const bool is_shared =
          std::ranges::all_of(records, [&](const Json& record) { return value_in(record) == value; });
      if (is_shared) {
        settings[key] = value;
        continue;
      }
      std::vector<std::string> by_mode;
      for (const Json& record : records) {
        const Json own = value_in(record);
        const std::string text = own.is_null() ? "-" : own.is_string() ? own.get<std::string>() : own.dump();
        by_mode.push_back(fmt::format("{}: {}", record["mode"].get<std::string>(), text));
      }
      settings[key] = fmt::format("{}", fmt::join(by_mode, ", "));
    }
    for (const Json& record : records) {
      if (record["count"] != "") settings["counted, " + record["mode"].get<std::string>()] = record["count"];
      const std::string warning = bench_warning(record);
      if (!warning.empty()) settings["warning, " + record["mode"].get<std::string>()] = warning;
    }
    return settings;
  }

  void read_file() {
    const Json content = read(path_);
    if (is_statistics(content)) {
      data_.runs.back()["kind"] = "statistics";
      Json pair = field(content, "meta");
      if (setting_name(pair).empty()) pair = pair_in(path_.stem().string());
      if (setting_name(pair).empty()) pair = pair_in(path_.parent_path().filename().string());
      const std::string setting = setting_name(pair).empty() ? path_.stem().string() : setting_name(pair);
      add_named("settings", {{"run", name_},
                             {"setting", setting},
                             {"input_fmt", field(pair, "input_fmt")},
                             {"output_fmt", field(pair, "output_fmt")},
                             {"weight_fmt", field(pair, "weight_fmt")},
                             {"kv_cache_fmt", field(pair, "kv_cache_fmt")},
                             {"vector_fmt", field(pair, "vector_fmt")},
                             {"accumulator", field(pair, "accumulator")},
                             {"noise", field(pair, "noise")},
                             {"source", path_.string()}});
      return read_statistics(content, path_, setting);
    }
    std::vector<Json> records;
    const auto note = [&](const Json& record) {
      if (!record.is_object() || !record.contains("stages") || !record.contains("seconds")) return;
      JsonFields fields(record, path_.string());
      records.push_back({{"mode", has(fields, "mode") ? text_in(fields, "mode") : Json("")},
                         {"stages", fields.named_numbers("stages")},
                         {"settings", object_in(fields, "settings")},
                         {"counted", number_in(fields, "counted")},
                         {"count", bench_count(record)}});
    };
    note(content);
    if (content.is_object()) std::ranges::for_each(content, note);
    if (records.empty()) {
      throw std::runtime_error(path_.string() +
                               ": found neither statistics nor records of pi0 bench, expected a file of "
                               "--stats-output, of pi0-quant's, or of pi0 bench --json");
    }
    data_.runs.back()["kind"] = "bench";
    data_.runs.back()["meta"] = settings_of_modes(records);
    for (const Json& record : records) {
      for (const auto& [stage, seconds] : record["stages"].items())
        add("stages", {name_, record["mode"], stage, seconds});
    }
  }

  ReportData data_;
  std::map<std::string, std::size_t> tables_;
  fs::path path_;
  std::string name_;  // of the run that is read
};

}  // namespace

const ReportTable* ReportData::find(const std::string& table) const {
  const auto found = std::ranges::find(tables, table, &ReportTable::name);
  return found == tables.end() ? nullptr : &*found;
}

ReportData read_results(const std::vector<fs::path>& paths) {
  Reader reader;
  for (const fs::path& path : paths) reader.read_result(path);
  return reader.result();
}

}  // namespace pi0::tools
