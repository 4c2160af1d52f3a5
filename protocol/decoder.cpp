#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>

#include "protocol/dict_builder.h"
#include "protocol/msgpack_numpy.h"
#include "protocol/utf8.h"
#include "protocol/value.h"
#include "protocol/value_reader.h"

namespace pi0::protocol {
namespace {

void check_end(const ValueReader& reader) {
  if (reader.bytes_left() == 0) return;
  throw ProtocolError("message: " + std::to_string(reader.bytes_left()) + " bytes follow the msgpack value");
}

Dict decode_all(std::span<const std::uint8_t> message, const DecodeLimits& limits) {
  ValueReader reader(message, limits);
  Value root = reader.build();
  check_end(reader);
  auto* dict = std::get_if<Dict>(&root);
  if (!dict) throw ProtocolError("message: found " + type_name(root) + ", expected a map");
  return std::move(*dict);
}

// Builds the fields that are wanted; the others become Packed.
Dict decode_fields(std::span<const std::uint8_t> message, const DecodeLimits& limits) {
  ValueReader reader(message, limits);
  const std::optional<std::uint32_t> count = reader.map_header();
  if (!count) return decode_all(message, limits);  // throws: it names what came instead of a map
  DictBuilder dict;
  for (std::uint32_t i = 0; i < *count; ++i) {
    const Value key = reader.build();
    if (const auto* name = std::get_if<std::string>(&key)) {
      const bool is_wanted = std::ranges::find(limits.fields, *name) != limits.fields.end();
      dict.set(*name, is_wanted ? reader.build(clipped(*name)) : Value(reader.skip(*name)));
    } else if (std::holds_alternative<Bytes>(key)) {
      reader.skip("<binary>");  // no field of a request has a binary key
    } else {
      throw ProtocolError("message: a map key of type " + type_name(key) + ", expected str or bin");
    }
  }
  check_end(reader);
  return dict.take();
}

}  // namespace

Dict decode(std::span<const std::uint8_t> message, const DecodeLimits& limits) {
  return limits.fields.empty() ? decode_all(message, limits) : decode_fields(message, limits);
}

}  // namespace pi0::protocol
