// Reads JSON configuration and result files strictly. An unknown, missing or mistyped key is an error that names the
// place, what was found and what was expected.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace pi0::model {

using Json = nlohmann::ordered_json;

class JsonFileError : public std::invalid_argument {
  using invalid_argument::invalid_argument;
};

// Stricter than JSON: a key that an object repeats (most parsers silently keep one value) and nesting of more than 64
// levels are errors. `source` names the text in messages. Both throw JsonFileError.
Json parse_json(std::string_view text, const std::string& source);
Json read_json(const std::filesystem::path& file);

// A value as text for messages: truncated if long, with invalid UTF-8 replaced.
std::string shown(const Json& value);

// Replaces NaN and Infinity, which Python's json module writes and JSON does not have, by null. Strings stay as they
// are.
std::string without_python_numbers(const std::string& text);

// Reads the fields of one object, which must outlive the reader. Every function throws JsonFileError.
class JsonFields {
 public:
  JsonFields(const Json& object, std::string where);

  bool has(const std::string& key);
  bool flag(const std::string& key);
  std::int64_t count(const std::string& key);  // 1 to 2^24
  std::int64_t whole(const std::string& key);  // 0 to 2^24
  std::string text(const std::string& key);    // not empty
  std::vector<bool> flags(const std::string& key);
  std::vector<std::string> texts(const std::string& key);
  JsonFields object(const std::string& key);
  std::vector<JsonFields> objects(const std::string& key);  // the list must not be empty
  std::vector<JsonFields> rows(const std::string& key);     // the list may be empty
  const Json& number_or_null(const std::string& key);       // null: not finite, or no value
  const Json& numbers(const std::string& key);              // a list of numbers and nulls, may be empty
  const Json& named_numbers(const std::string& key);        // an object of numbers and nulls, with any keys
  const Json& any_object(const std::string& key);           // an object with any content
  const Json& value(const std::string& key);

  // Call last: refuses keys that were not read.
  void finish() const;

  [[noreturn]] void mistyped(const std::string& key, const std::string& expected);
  [[noreturn]] void refuse(const std::string& what) const;

 private:
  const Json& list(const std::string& key, const std::string& expected);
  std::int64_t integer(const std::string& key, std::int64_t least, const std::string& expected);

  const Json& object_;
  std::string where_;
  std::set<std::string> asked_;
};

}  // namespace pi0::model
