// The values that requests and answers are made of: msgpack's types and NumPy arrays.
// Plain data; knows no byte format, sockets or LibTorch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
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

// A msgpack extension, such as a timestamp. Kept and written again, never interpreted.
struct Extension {
  std::int8_t type = 0;
  std::vector<std::uint8_t> data;
};

// One value left as msgpack bytes, because nobody reads it (DecodeLimits::fields).
struct Packed {
  std::vector<std::uint8_t> data;
};

struct Value;
struct List;

// Keeps the order in which keys were added, as a Python dict does. Keys are text: the decoder drops
// entries under binary keys, since no field of a request has one.
class Dict {
 public:
  using Entry = std::pair<std::string, Value>;

  Dict() = default;
  explicit Dict(std::vector<Entry> entries);  // keys must differ

  const Value* find(std::string_view key) const;  // null when absent; owned by the Dict
  Value* find(std::string_view key);
  void set(std::string key, Value value);  // replaces the value of a key that is there already
  void erase(std::string_view key);        // if it is there
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

// What np.asarray makes of a list of arrays of one shape and dtype. Nothing for other lists.
std::optional<NdArray> stacked(const List& list);

std::string dtype_name(const DType& dtype);  // "float32"
std::string type_name(const Value& value);   // for error messages: "nil", "str", "float32 array [7]"

}  // namespace pi0::protocol
