// Readers of fields that results of other programs and versions may lack or have null: these then give null, or what is
// empty. They throw what JsonFields does for a field of another type.
#pragma once

#include <nlohmann/json.hpp>

#include "model/json_fields.h"

namespace pi0::tools {

nlohmann::ordered_json field(const nlohmann::ordered_json& object, const char* key);  // of what may be no object

bool has(model::JsonFields& fields, const char* key);
nlohmann::ordered_json number_in(model::JsonFields& fields, const char* key);
nlohmann::ordered_json numbers_in(model::JsonFields& fields, const char* key);  // or []
nlohmann::ordered_json object_in(model::JsonFields& fields, const char* key);   // or {}
nlohmann::ordered_json text_in(model::JsonFields& fields, const char* key);
nlohmann::ordered_json flag_in(model::JsonFields& fields, const char* key);

}  // namespace pi0::tools
