// A setting's formats by role, as files, folders and command lines name them.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "quant/format.h"
#include "quant/weight_size.h"

namespace pi0::tools {

// input_fmt and output_fmt, then weight_fmt where weights have another format than inputs, and kv_cache_fmt,
// vector_fmt, rotate, smooth, clip, accumulator and noise where they are asked for.
nlohmann::ordered_json fields_of(const quant::SiteFormats& formats);

// weight_bits, of a value on average, and weight_bytes.
nlohmann::ordered_json fields_of(const quant::WeightSize& size);

// Formats as options of pi0-server.
std::vector<std::string> arguments_of(const quant::SiteFormats& formats);

// The folder of results: "<input>__<output>" as pi0-quant names it, then "__weight_<format>", "__kv_cache_<format>",
// "__vector_<format>", "__rotate", "__smooth_<alpha>", "__clip_<percentile>", "__accumulator_<name>" and
// "__noise_<name>" where fields_of() has those. '-' stands for the ':' and ',' of names.
std::string folder_of(const quant::SiteFormats& formats);

// The keys of fields_of(), in their order.
inline constexpr const char* format_keys[] = {"input_fmt",  "output_fmt",  "weight_fmt", "kv_cache_fmt",
                                              "vector_fmt", "accumulator", "noise"};

// What fields_of() wrote, among other fields; none if input_fmt or output_fmt is no name of a format.
std::optional<quant::SiteFormats> formats_in(const nlohmann::ordered_json& fields);

}  // namespace pi0::tools
