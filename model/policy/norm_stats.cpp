#include "model/policy/norm_stats.h"

#include <algorithm>
#include <cmath>

#include "model/json_fields.h"
#include "model/nearest_name.h"
#include "model/text_file.h"

namespace pi0::policy {
namespace {

using model::Json;

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw NormStatsError(where + ": " + what);
}

Json parse(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) {
    refuse(file.string(), "not found; openpi keeps a checkpoint's statistics in assets/<asset_id>/norm_stats.json");
  }
  try {
    // Numbers that are not finite become null. They are refused only where they are used.
    return model::parse_json(model::without_python_numbers(model::read_file(file)), file.string());
  } catch (const model::JsonFileError& error) {
    throw NormStatsError(error.what());
  } catch (const std::runtime_error& error) {
    throw NormStatsError(error.what());
  }
}

const Json& member(const Json& object, const std::string& where, const std::string& key) {
  if (!object.is_object()) refuse(where, std::string("is ") + object.type_name() + ", expected an object");
  const auto found = object.find(key);
  if (found != object.end()) return *found;
  std::string others;
  for (const auto& [other, value] : object.items()) {
    const std::string hint = model::did_you_mean(other, {key});
    if (!hint.empty()) refuse(where, "unknown key '" + other + "'" + hint);
    others += (others.empty() ? "" : ", ") + other;
  }
  refuse(where, "'" + key + "' is missing" + (others.empty() ? "" : "; found " + others));
}

std::vector<double> numbers(const Json& list, const std::string& where) {
  if (!list.is_array() || list.empty()) {
    refuse(where, std::string("is ") + (list.is_array() ? "empty" : list.type_name()) + ", expected a list of numbers");
  }
  std::vector<double> values;
  values.reserve(list.size());
  for (const Json& item : list) {
    if (!item.is_number() && !item.is_null()) {
      refuse(where + "[" + std::to_string(values.size()) + "]", "is " + model::shown(item) + ", expected a number");
    }
    values.push_back(item.is_null() ? NAN : item.get<double>());
  }
  return values;
}

FieldStats read_field(const Json& stats, const std::string& file, const std::string& field) {
  const std::string where = file + ": norm_stats." + field;
  const Json& object = member(stats, file + ": norm_stats", field);
  const auto required = [&](const std::string& key) { return numbers(member(object, where, key), where + "." + key); };
  const auto optional = [&](const std::string& key) {
    return object.contains(key) && !object[key].is_null() ? required(key) : std::vector<double>();
  };
  const auto check_pair = [&](const std::string& key, const std::vector<double>& first, const std::string& other,
                              const std::vector<double>& second) {
    if (first.size() != second.size()) {
      refuse(where, "'" + key + "' has " + std::to_string(first.size()) + " values, '" + other + "' has " +
                        std::to_string(second.size()));
    }
  };
  FieldStats read{required("mean"), required("std"), optional("q01"), optional("q99")};
  check_pair("mean", read.mean, "std", read.std);
  check_pair("q01", read.q01, "q99", read.q99);
  return read;
}

}  // namespace

std::filesystem::path norm_stats_file(const std::filesystem::path& checkpoint_dir, const std::string& asset_id) {
  return checkpoint_dir / "assets" / asset_id / "norm_stats.json";
}

std::vector<std::string> asset_ids(const std::filesystem::path& checkpoint_dir) {
  namespace fs = std::filesystem;
  constexpr int deepest = 3;
  const fs::path assets = checkpoint_dir / "assets";
  std::vector<std::string> ids;
  std::error_code ignored;
  for (auto entry = fs::recursive_directory_iterator(assets, ignored); entry != fs::recursive_directory_iterator();
       entry.increment(ignored)) {
    if (entry.depth() >= deepest) entry.disable_recursion_pending();
    if (entry->path().filename() == "norm_stats.json") {
      ids.push_back(entry->path().parent_path().lexically_relative(assets).string());
    }
  }
  std::ranges::sort(ids);
  return ids;
}

NormStats read_norm_stats(const std::filesystem::path& file) {
  const Json root = parse(file);
  const Json& stats = member(root, file.string(), "norm_stats");
  NormStats read{read_field(stats, file.string(), "state"), read_field(stats, file.string(), "actions"), file.string()};
  // openpi's Unnormalize refuses statistics of a key that is not in its data.
  for (const auto& [key, value] : stats.items()) {
    if (key != "state" && key != "actions") {
      refuse(file.string() + ": norm_stats", "has the unknown key '" + key + "'");
    }
  }
  return read;
}

std::string norm_stats_json(const NormStats& stats) {
  // A file must have mean and std; null is refused where it is used.
  const auto or_null = [](const std::vector<double>& values, std::size_t size) {
    return values.empty() ? Json(std::vector<Json>(size)) : Json(values);
  };
  Json fields;
  for (const auto& [name, field] : {std::pair("state", &stats.state), std::pair("actions", &stats.actions)}) {
    const std::size_t size = std::max(field->mean.size(), field->q01.size());
    fields[name] = {{"mean", or_null(field->mean, size)}, {"std", or_null(field->std, size)}};
    if (!field->q01.empty()) fields[name].update({{"q01", field->q01}, {"q99", field->q99}});
  }
  return Json{{"norm_stats", fields}}.dump(1) + "\n";
}

}  // namespace pi0::policy
