#include "model/json_fields.h"

#include <algorithm>
#include <array>

#include "model/nearest_name.h"
#include "model/text_file.h"

namespace pi0::model {
namespace {

bool is_number_or_null(const Json& value) { return value.is_number() || value.is_null(); }

}  // namespace

Json parse_json(std::string_view text, const std::string& source) {
  constexpr int max_nesting = 64;
  std::vector<std::set<std::string>> keys;  // of the enclosing objects
  const auto check = [&](int nesting, Json::parse_event_t event, Json& parsed) {
    if (nesting > max_nesting) throw JsonFileError(source + ": is nested more than 64 levels deep");
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      throw JsonFileError(source + ": has the key '" + parsed.get<std::string>() + "' twice");
    }
    return true;
  };
  try {
    return Json::parse(text, check);
  } catch (const Json::exception& error) {
    throw JsonFileError(source + ": is not valid JSON: " + error.what());
  }
}

std::string shown(const Json& value) {
  constexpr std::size_t longest = 200;
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  if (text.size() > longest) text.replace(longest, text.npos, "...");
  return text;
}

Json read_json(const std::filesystem::path& file) {
  std::string text;
  try {
    text = read_file(file);
  } catch (const std::runtime_error& error) {
    throw JsonFileError(error.what());
  }
  return parse_json(text, file.string());
}

std::string without_python_numbers(const std::string& text) {
  using namespace std::string_view_literals;
  constexpr std::array names = {"NaN"sv, "Infinity"sv, "-Infinity"sv};
  std::string replaced;
  bool in_string = false;
  for (std::string_view rest = text; !rest.empty();) {
    const auto* const name = std::ranges::find_if(names, [&](std::string_view each) { return rest.starts_with(each); });
    if (!in_string && name != names.end()) {
      replaced += "null";
      rest.remove_prefix(name->size());
      continue;
    }
    if (rest.front() == '"') in_string = !in_string;
    const bool is_escape = in_string && rest.front() == '\\';  // an escaped quote does not end the string
    const std::string_view kept = rest.substr(0, is_escape ? 2 : 1);
    replaced += kept;
    rest.remove_prefix(kept.size());
  }
  return replaced;
}

JsonFields::JsonFields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) refuse("is " + shown(object) + ", expected an object");
}

bool JsonFields::has(const std::string& key) {
  asked_.insert(key);
  return object_.contains(key);
}

const Json& JsonFields::value(const std::string& key) {
  if (has(key)) return object_[key];
  for (const auto& [other, value] : object_.items()) {  // the key may be there, but misspelled
    const std::string hint = asked_.contains(other) ? "" : did_you_mean(other, {key});
    if (!hint.empty()) refuse("unknown key '" + other + "'" + hint);
  }
  refuse("'" + key + "' is missing");
}

bool JsonFields::flag(const std::string& key) {
  if (!value(key).is_boolean()) mistyped(key, "true or false");
  return value(key).get<bool>();
}

std::int64_t JsonFields::integer(const std::string& key, std::int64_t least, const std::string& expected) {
  constexpr std::int64_t limit = 1 << 24;  // far above any real size, far below overflow
  if (!value(key).is_number_unsigned() || value(key) < least || value(key) > limit) mistyped(key, expected);
  return value(key).get<std::int64_t>();
}

std::int64_t JsonFields::count(const std::string& key) { return integer(key, 1, "a positive integer"); }

std::int64_t JsonFields::whole(const std::string& key) { return integer(key, 0, "a non-negative integer"); }

std::string JsonFields::text(const std::string& key) {
  if (!value(key).is_string() || value(key) == "") mistyped(key, "a non-empty string");
  return value(key).get<std::string>();
}

const Json& JsonFields::list(const std::string& key, const std::string& expected) {
  if (!value(key).is_array() || value(key).empty()) mistyped(key, expected);
  return value(key);
}

std::vector<bool> JsonFields::flags(const std::string& key) {
  const Json& items = list(key, "a list of true and false");
  if (!std::ranges::all_of(items, &Json::is_boolean)) mistyped(key, "a list of true and false");
  return items.get<std::vector<bool>>();
}

std::vector<std::string> JsonFields::texts(const std::string& key) {
  const Json& items = list(key, "a list of strings");
  if (!std::ranges::all_of(items, &Json::is_string)) mistyped(key, "a list of strings");
  return items.get<std::vector<std::string>>();
}

JsonFields JsonFields::object(const std::string& key) { return {value(key), where_ + "." + key}; }

std::vector<JsonFields> JsonFields::objects(const std::string& key) {
  std::vector<JsonFields> items;
  for (const Json& item : list(key, "a list of at least one object")) {
    items.emplace_back(item, where_ + ": '" + key + "' entry " + std::to_string(items.size() + 1));
  }
  return items;
}

std::vector<JsonFields> JsonFields::rows(const std::string& key) {
  if (!value(key).is_array()) mistyped(key, "a list of objects");
  return value(key).empty() ? std::vector<JsonFields>() : objects(key);
}

const Json& JsonFields::number_or_null(const std::string& key) {
  if (!is_number_or_null(value(key))) mistyped(key, "a number or null");
  return value(key);
}

const Json& JsonFields::numbers(const std::string& key) {
  const bool fits = value(key).is_array() && std::ranges::all_of(value(key), is_number_or_null);
  if (!fits) mistyped(key, "a list of numbers and nulls");
  return value(key);
}

const Json& JsonFields::named_numbers(const std::string& key) {
  const bool fits = value(key).is_object() && std::ranges::all_of(value(key), is_number_or_null);
  if (!fits) mistyped(key, "an object of numbers and nulls");
  return value(key);
}

const Json& JsonFields::any_object(const std::string& key) {
  if (!value(key).is_object()) mistyped(key, "an object");
  return value(key);
}

void JsonFields::finish() const {
  std::string known;
  for (const std::string& key : asked_) known += (known.empty() ? "" : ", ") + key;
  for (const auto& [key, value] : object_.items()) {
    if (asked_.contains(key)) continue;
    const std::string hint = did_you_mean(key, {asked_.begin(), asked_.end()});
    refuse("unknown key '" + key + "'" + (hint.empty() ? "; known: " + known : hint));
  }
}

void JsonFields::mistyped(const std::string& key, const std::string& expected) {
  refuse("'" + key + "' is " + shown(value(key)) + ", expected " + expected);
}

void JsonFields::refuse(const std::string& what) const { throw JsonFileError(where_ + ": " + what); }

}  // namespace pi0::model
