// The values a request and an answer are made of: what msgpack can say, plus NumPy arrays.
// Plain data without codecs, sockets or LibTorch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace pi0::protocol {

// A NumPy dtype in its canonical form: kind is one of b i u f U S, as in numpy.dtype.kind.
struct DType {
  char kind = 'f';
  std::int64_t item_size = 8;  // bytes; 4 per character for U
  bool operator==(const DType&) const = default;
};

// A C-ordered array in native (little-endian) byte order. A NumPy scalar is an array of no axes.
struct NdArray {
  DType dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::uint8_t> data;  // element_count() * dtype.item_size bytes

  std::int64_t element_count() const;
};

struct Bytes {
  std::vector<std::uint8_t> data;
};

// A msgpack extension (timestamps among them), kept but never read.
struct Extension {
  std::int8_t type = 0;
  std::vector<std::uint8_t> data;
};

// A field that was asked to stay as it came: the msgpack of one value, whole, of which nothing else is known.
struct Packed {
  std::vector<std::uint8_t> data;
};

struct Value;
struct List;

// Keeps the order in which keys were added, as a Python dict does. Keys are text: an entry under a
// binary key is dropped by the decoder, since no field of a request has such a name.
class Dict {
 public:
  using Entry = std::pair<std::string, Value>;

  Dict() = default;
  explicit Dict(std::vector<Entry> entries);  // of keys that differ

  const Value* find(std::string_view key) const;  // null when absent; owned by the Dict
  void set(std::string key, Value value);         // replaces an entry of the same key in place
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
};

struct List {
  std::vector<Value> items;
};

// Integers above 2^63-1 are uint64; every other integer is int64. float32 is read as double.
struct Value : std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string, Bytes, List, Dict,
                            NdArray, Extension, Packed> {
  using variant::variant;
};

std::string dtype_name(const DType& dtype);  // "float32"
std::string type_name(const Value& value);   // "nil", "str", "float32 array [7]", for messages

}  // namespace pi0::protocol
