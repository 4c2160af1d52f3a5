#include "model/json_fields.h"

#include "support/catch.h"

namespace pi0 {
namespace {

TEST_CASE("Python's numbers that JSON does not have become null, but not in strings", "[model][json]") {
  const auto replaced = model::without_python_numbers;
  CHECK(replaced(R"([NaN, -Infinity,Infinity, -1])") == "[null, null,null, -1]");
  CHECK(replaced(R"({"NaN": "Infinity", "a": NaN})") == R"({"NaN": "Infinity", "a": null})");
  CHECK(replaced(R"({"a \"NaN": NaN, "b\\": NaN, "c\\\" NaN": 1})") ==
        R"({"a \"NaN": null, "b\\": null, "c\\\" NaN": 1})");
  for (const char* unfinished : {"", "\"NaN", "\"\\", "Na", "\\"}) CHECK(replaced(unfinished) == unfinished);
}

}  // namespace
}  // namespace pi0
