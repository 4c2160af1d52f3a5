#include "tools/common/format_fields.h"

#include <fmt/format.h>

#include <stdexcept>

namespace pi0::tools {

using Json = nlohmann::ordered_json;
using quant::NumberFormat;
using quant::SiteFormats;

Json fields_of(const SiteFormats& formats) {
  Json fields = {{"input_fmt", name_of(formats.input)}, {"output_fmt", name_of(formats.output)}};
  if (formats.has_weight_of_its_own()) fields["weight_fmt"] = name_of(formats.weight);
  if (formats.kv_cache) fields["kv_cache_fmt"] = name_of(*formats.kv_cache);
  if (formats.vector) fields["vector_fmt"] = name_of(*formats.vector);
  if (formats.methods.rotate) fields["rotate"] = true;
  if (formats.methods.smooth) fields["smooth"] = *formats.methods.smooth;
  if (formats.methods.clip) fields["clip"] = *formats.methods.clip;
  if (formats.accumulator.is_ordered()) fields["accumulator"] = name_of(formats.accumulator);
  if (formats.noise) fields["noise"] = name_of(*formats.noise);
  return fields;
}

Json fields_of(const quant::WeightSize& size) { return {{"weight_bits", size.bits()}, {"weight_bytes", size.bytes}}; }

std::vector<std::string> arguments_of(const SiteFormats& formats) {
  std::vector<std::string> arguments = {"--input-fmt", name_of(formats.input), "--output-fmt", name_of(formats.output)};
  if (formats.has_weight_of_its_own()) arguments.insert(arguments.end(), {"--weight-fmt", name_of(formats.weight)});
  if (formats.kv_cache) arguments.insert(arguments.end(), {"--kv-cache-fmt", name_of(*formats.kv_cache)});
  if (formats.vector) arguments.insert(arguments.end(), {"--vector-fmt", name_of(*formats.vector)});
  if (formats.methods.rotate) arguments.emplace_back("--rotate");
  if (formats.methods.smooth)
    arguments.insert(arguments.end(), {"--smooth", fmt::format("{}", *formats.methods.smooth)});
  if (formats.methods.clip) arguments.insert(arguments.end(), {"--clip", fmt::format("{}", *formats.methods.clip)});
  if (formats.accumulator.is_ordered()) {
    arguments.insert(arguments.end(), {"--accumulator", name_of(formats.accumulator)});
  }
  if (formats.noise) arguments.insert(arguments.end(), {"--output-noise", name_of(*formats.noise)});
  return arguments;
}

std::string folder_of(const SiteFormats& formats) {
  std::string folder = file_name_of(formats.input) + "__" + file_name_of(formats.output);
  if (formats.has_weight_of_its_own()) folder += "__weight_" + file_name_of(formats.weight);
  if (formats.kv_cache) folder += "__kv_cache_" + file_name_of(*formats.kv_cache);
  if (formats.vector) folder += "__vector_" + file_name_of(*formats.vector);
  if (formats.methods.rotate) folder += "__rotate";
  if (formats.methods.smooth) folder += fmt::format("__smooth_{}", *formats.methods.smooth);
  if (formats.methods.clip) folder += fmt::format("__clip_{}", *formats.methods.clip);
  if (formats.accumulator.is_ordered()) folder += "__accumulator_" + file_name_of(formats.accumulator);
  if (formats.noise) folder += "__noise_" + file_name_of(*formats.noise);
  return folder;
}

std::optional<SiteFormats> formats_in(const Json& fields) {
  const auto parsed_by = [&]<class Parse>(const char* key,
                                          const Parse& parse) -> std::optional<decltype(parse(std::string()))> {
    const Json name = fields.is_object() ? fields.value(key, Json()) : Json();
    if (!name.is_string()) return std::nullopt;
    try {
      return parse(name.get<std::string>());
    } catch (const std::invalid_argument&) {
      return std::nullopt;
    }
  };
  const auto format = [&](const char* key) { return parsed_by(key, formats::parse_number_format); };
  const auto input = format("input_fmt"), output = format("output_fmt");
  if (!input || !output) return std::nullopt;
  SiteFormats found(*input, *output);
  found.weight = format("weight_fmt").value_or(found.weight);
  found.kv_cache = format("kv_cache_fmt");
  found.vector = format("vector_fmt");
  found.methods.rotate = fields.value("rotate", Json()) == true;
  const auto number = [&](const char* key) -> std::optional<double> {
    const Json value = fields.value(key, Json());
    return value.is_number() ? std::optional(value.get<double>()) : std::nullopt;
  };
  found.methods.smooth = number("smooth");
  found.methods.clip = number("clip");
  found.accumulator = parsed_by("accumulator", formats::parse_accumulator).value_or(formats::Accumulator{});
  found.noise = parsed_by("noise", formats::parse_noise);
  return found;
}

}  // namespace pi0::tools
