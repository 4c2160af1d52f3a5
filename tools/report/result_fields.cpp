#include "tools/report/result_fields.h"

namespace pi0::tools {

using Json = nlohmann::ordered_json;
using model::JsonFields;

Json field(const Json& object, const char* key) { return object.is_object() ? object.value(key, Json()) : Json(); }

bool has(JsonFields& fields, const char* key) { return fields.has(key) && !fields.value(key).is_null(); }

Json number_in(JsonFields& fields, const char* key) { return has(fields, key) ? fields.number_or_null(key) : Json(); }

Json numbers_in(JsonFields& fields, const char* key) { return has(fields, key) ? fields.numbers(key) : Json::array(); }

Json object_in(JsonFields& fields, const char* key) {
  return has(fields, key) ? fields.any_object(key) : Json::object();
}

Json text_in(JsonFields& fields, const char* key) {
  if (!has(fields, key)) return {};
  if (!fields.value(key).is_string()) fields.mistyped(key, "a string");
  return fields.value(key);
}

Json flag_in(JsonFields& fields, const char* key) { return has(fields, key) ? Json(fields.flag(key)) : Json(); }

}  // namespace pi0::tools
