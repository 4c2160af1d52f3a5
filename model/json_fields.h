// Reads configuration and result files strictly: every key is known, there and of its type, or the error names
// the place, what was found and what was expected.
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

// Stricter than JSON: no object has a key twice, of which parsers keep one, and nothing is nested more
// than 64 deep. `source` names the text in messages. Both throw JsonFileError.
Json parse_json(std::string_view text, const std::string& source);
Json read_json(const std::filesystem::path& file);

// A value as messages show it: cut when it is long, without bytes that are not UTF-8.
std::string shown(const Json& value);

// Python's json module writes NaN and Infinity, which JSON has no words for: null instead.
std::string without_python_numbers(const std::string& text);

// The fields of one object, which must outlive it. Every function throws JsonFileError.
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
  std::vector<JsonFields> objects(const std::string& key);  // of a list that is not empty
  std::vector<JsonFields> rows(const std::string& key);     // of a list that may be
  const Json& number_or_null(const std::string& key);       // null: it was not finite, or there is none
  const Json& numbers(const std::string& key);              // a list of such, maybe empty
  const Json& named_numbers(const std::string& key);        // an object of such, with keys of any name
  const Json& any_object(const std::string& key);           // with whatever in it
  const Json& value(const std::string& key);

  // To be called last: refuses keys that nobody asked for.
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
