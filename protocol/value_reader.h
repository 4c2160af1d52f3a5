// Reads the bytes of a message one msgpack value after the other: builds a value, or checks and skips it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "protocol/msgpack_numpy.h"
#include "protocol/value.h"

namespace pi0::protocol {

// Throws ProtocolError for bytes that are not msgpack and for values beyond the limits. Nothing is allocated for a
// size that a header only announces.
class ValueReader {
 public:
  // Both outlive the reader.
  ValueReader(std::span<const std::uint8_t> message, const DecodeLimits& limits) : message_(message), limits_(limits) {}

  // The number of entries that follow a map's header. Nothing, and nothing is read, when no map comes next.
  std::optional<std::uint32_t> map_header();

  // `field` is what messages call the value: the key it stands under, or empty for the message itself.
  Value build(const std::string& field = "");

  // The value's bytes. Checks that they are msgpack within the limit of nesting, with text in UTF-8.
  Packed skip(const std::string& field);

  std::size_t bytes_left() const { return message_.size() - offset_; }

 private:
  std::span<const std::uint8_t> message_;
  const DecodeLimits& limits_;
  std::size_t offset_ = 0;
};

}  // namespace pi0::protocol
