// A setting's formats by role, as files, folders and command lines name them.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "quant/format.h"

namespace pi0::tools {

// input_fmt and output_fmt, then weight_fmt where weights have another format than inputs, and kv_cache_fmt if there is
// one.
nlohmann::ordered_json fields_of(const quant::SiteFormats& formats);

// The same as options of pi0-server.
std::vector<std::string> arguments_of(const quant::SiteFormats& formats);

// The folder of results: "<input>__<output>" as pi0-quant names it, then "__weight_<format>" and "__kv_cache_<format>"
// where fields_of() has those. '-' stands for the ':' of formats' names.
std::string folder_of(const quant::SiteFormats& formats);

// The keys of fields_of(), in their order.
inline constexpr const char* format_keys[] = {"input_fmt", "output_fmt", "weight_fmt", "kv_cache_fmt"};

// What fields_of() wrote, among other fields; none if input_fmt or output_fmt is no name of a format.
std::optional<quant::SiteFormats> formats_in(const nlohmann::ordered_json& fields);

}  // namespace pi0::tools
