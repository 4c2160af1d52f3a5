// msgpack bytes to values and back, as openpi's Python client and server write them: a NumPy array is a map with the
// binary keys __ndarray__, data, dtype and shape; a NumPy scalar has __npgeneric__, data and dtype. decode() also takes
// text keys, and the names of the package msgpack-numpy. Knows nothing of the fields of a request. decode() is in
// decoder.cpp, encode() in encoder.cpp. Any thread may call both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "protocol/value.h"

namespace pi0::protocol {

// A message that cannot be read or written; what() is one sentence that names the field.
class ProtocolError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct DecodeLimits {
  std::size_t max_depth = 1024;  // maps and lists inside each other; msgpack-python's limit
  // Values that are built, in the whole message or, with `fields`, in one field. Each takes about 70 bytes of memory.
  std::size_t max_values = std::size_t{1} << 20;
  std::size_t max_string_bytes = std::size_t{1} << 30;
  std::size_t max_array_bytes = std::size_t{1} << 30;  // of one array or bin value
  // Fields of the outermost map that are built; the others become Packed. Empty: all are built.
  std::vector<std::string> fields = {};
};

// Throws ProtocolError unless the bytes are exactly one map within the limits. Every array that is built is
// complete: a supported dtype and as many bytes as its shape needs. Takes time in proportion to the bytes.
Dict decode(std::span<const std::uint8_t> message, const DecodeLimits& limits = {});

// The bytes that Python's msgpack packs for the same values. Throws ProtocolError for an array
// whose data does not fit its shape, and for what msgpack cannot hold (4 GiB and more).
std::vector<std::uint8_t> encode(const Dict& message);
std::vector<std::uint8_t> encode(const Value& message);

}  // namespace pi0::protocol
