#include "protocol/msgpack_numpy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstring>
#include <limits>
#include <map>
#include <msgpack.hpp>
#include <optional>
#include <type_traits>
#include <unordered_map>
#include <utility>

namespace pi0::protocol {
namespace {

static_assert(std::endian::native == std::endian::little, "arrays are kept in little-endian order");

constexpr std::size_t max_axes = 32;  // NumPy 1's limit

std::string clipped(std::string_view text) {
  constexpr std::size_t longest = 80;
  if (!is_utf8(text)) return "<binary>";
  if (text.size() <= longest) return std::string(text);
  std::size_t end = longest;
  while ((text[end] & 0xC0) == 0x80) --end;  // not inside a character
  return std::string(text.substr(0, end)) + "...";
}

struct WireDType {
  DType dtype;
  bool swapped = false;
};

bool is_supported(const DType& dtype) {
  const std::int64_t size = dtype.item_size;
  switch (dtype.kind) {
    case 'b':
      return size == 1;
    case 'i':
    case 'u':
      return size == 1 || size == 2 || size == 4 || size == 8;
    case 'f':
      return size == 2 || size == 4 || size == 8;
    default:
      return (dtype.kind == 'U' || dtype.kind == 'S') && size > 0;
  }
}

bool has_byte_order(const DType& dtype) { return dtype.kind != 'S' && dtype.item_size > 1; }

// NumPy's dtype.str ("<f8", "|u1", ">U12"; without a byte order it is native) or a plain name
// ("float64").
std::optional<WireDType> parse_dtype(std::string_view text) {
  for (const DType named : {DType{'b', 1}, DType{'u', 1}, DType{'u', 2}, DType{'u', 4}, DType{'u', 8}, DType{'i', 1},
                            DType{'i', 2}, DType{'i', 4}, DType{'i', 8}, DType{'f', 2}, DType{'f', 4}, DType{'f', 8}}) {
    if (text == dtype_name(named)) return WireDType{named};
  }
  char order = '=';
  if (!text.empty() && std::string_view("<>=|").find(text[0]) != std::string_view::npos) {
    order = text[0];
    text.remove_prefix(1);
  }
  if (text.size() < 2 || text[1] == '0') return std::nullopt;
  std::int32_t size = 0;
  const auto [end, error] = std::from_chars(text.data() + 1, text.data() + text.size(), size);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;

  const DType dtype{text[0], text[0] == 'U' ? std::int64_t{4} * size : size};
  if (!is_supported(dtype) || (order == '|' && has_byte_order(dtype))) return std::nullopt;
  return WireDType{dtype, order == '>' && has_byte_order(dtype)};
}

std::string dtype_str(const DType& dtype) {
  const std::int64_t size = dtype.kind == 'U' ? dtype.item_size / 4 : dtype.item_size;
  return std::string(has_byte_order(dtype) ? "<" : "|") + dtype.kind + std::to_string(size);
}

// Bytes an array needs; nothing when a size is negative or the product leaves 63 bits. Sizes of
// zero do not excuse the others, as in NumPy.
std::optional<std::int64_t> byte_count(const DType& dtype, const std::vector<std::int64_t>& shape) {
  std::int64_t bytes = dtype.item_size;
  bool empty = false;
  for (const std::int64_t size : shape) {
    if (size < 0) return std::nullopt;
    if (size == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(bytes, size, &bytes)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : bytes;
}

void swap_bytes(NdArray& array) {
  const std::int64_t unit = array.dtype.kind == 'U' ? 4 : array.dtype.item_size;
  for (auto at = array.data.begin(); at != array.data.end(); at += unit) {
    std::reverse(at, at + unit);
  }
}

// IEEE half, round to nearest even; C++20 has no such type.
std::uint16_t half_bits(double value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7E00;
  if (magnitude >= 65520.0) return sign | 0x7C00;
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  const int power = magnitude == 0 ? -14 : std::max(exponent - 1, -14);  // -14: subnormals too
  const auto steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - power)));
  return static_cast<std::uint16_t>(sign | (((power + 14) << 10) + steps));
}

template <typename T>
void store(NdArray& scalar, T value) {
  scalar.data.resize(sizeof(T));
  std::memcpy(scalar.data.data(), &value, sizeof(T));
}

// Stores an integer of any width; false when it does not fit.
template <typename T>
bool store_integer(NdArray& scalar, const Value& value) {
  return std::visit(
      [&](const auto& number) {
        using Number = std::decay_t<decltype(number)>;
        if constexpr (std::same_as<Number, bool>) {
          store(scalar, static_cast<T>(number));
          return true;
        } else if constexpr (std::integral<Number>) {
          store(scalar, static_cast<T>(number));
          return std::in_range<T>(number);
        } else {
          return false;
        }
      },
      value);
}

bool store_float(NdArray& scalar, const Value& value) {
  return std::visit(
      [&](const auto& number) {
        if constexpr (std::is_arithmetic_v<std::decay_t<decltype(number)>>) {
          const auto real = static_cast<double>(number);
          switch (scalar.dtype.item_size) {
            case 2:
              store(scalar, half_bits(real));
              break;
            case 4:
              store(scalar, static_cast<float>(real));
              break;
            default:
              store(scalar, real);
          }
          return true;
        } else {
          return false;
        }
      },
      value);
}

bool store_number(NdArray& scalar, const Value& value) {
  const bool is_signed = scalar.dtype.kind == 'i';
  if (scalar.dtype.kind == 'f') return store_float(scalar, value);
  if (scalar.dtype.kind == 'b') {
    const auto* flag = std::get_if<bool>(&value);
    if (flag) store(scalar, *flag);
    return flag != nullptr;
  }
  switch (scalar.dtype.item_size) {
    case 1:
      return is_signed ? store_integer<std::int8_t>(scalar, value) : store_integer<std::uint8_t>(scalar, value);
    case 2:
      return is_signed ? store_integer<std::int16_t>(scalar, value) : store_integer<std::uint16_t>(scalar, value);
    case 4:
      return is_signed ? store_integer<std::int32_t>(scalar, value) : store_integer<std::uint32_t>(scalar, value);
    default:
      return is_signed ? store_integer<std::int64_t>(scalar, value) : store_integer<std::uint64_t>(scalar, value);
  }
}

// A Dict in the making: as Dict::set(), but a key is found without looking at all others.
class Entries {
 public:
  void set(const std::string& key, Value value) {
    const auto [place, is_new] = places_.try_emplace(key, entries_.size());
    if (is_new) {
      entries_.emplace_back(key, std::move(value));
    } else {
      entries_[place->second].second = std::move(value);
    }
  }
  Dict take() { return Dict(std::move(entries_)); }

 private:
  std::vector<Dict::Entry> entries_;
  std::unordered_map<std::string, std::size_t> places_;  // of keys in entries_
};

// Builds values while msgpack-c walks the bytes. Headers announce sizes that the bytes may not
// keep, so nothing is allocated for an announced size.
class Builder : public msgpack::null_visitor {
 public:
  // `place` is the path of the value that is read, for messages; empty for the message itself.
  explicit Builder(const DecodeLimits& limits, std::string place = "") : limits_(limits), place_(std::move(place)) {}

  bool visit_nil() { return add_scalar(Value{}); }
  bool visit_boolean(bool v) { return add_scalar(v); }
  bool visit_positive_integer(std::uint64_t v) {
    return std::in_range<std::int64_t>(v) ? add_scalar(static_cast<std::int64_t>(v)) : add_scalar(v);
  }
  bool visit_negative_integer(std::int64_t v) { return add_scalar(v); }
  bool visit_float32(float v) { return add_scalar(static_cast<double>(v)); }
  bool visit_float64(double v) { return add_scalar(v); }

  bool visit_str(const char* data, std::uint32_t size) {
    const std::string_view text(data, size);
    if (size > limits_.max_string_bytes) {
      fail("a string of " + std::to_string(size) + " bytes, at most " + std::to_string(limits_.max_string_bytes) +
           " are read");
    }
    if (!is_utf8(text)) fail("a string that is not UTF-8");
    if (in_key_) return set_key(text, false);
    return add_scalar(std::string(text));
  }

  bool visit_bin(const char* data, std::uint32_t size) {
    if (in_key_) return set_key({data, size}, true);
    if (size > limits_.max_array_bytes) {
      fail(std::to_string(size) + " bytes of data, at most " + std::to_string(limits_.max_array_bytes) + " are read");
    }
    return add_scalar(Bytes{{data, data + size}});
  }

  bool visit_ext(const char* data, std::uint32_t size) {  // data starts with the type
    if (size == 0) fail("an extension of 4 GiB");         // its length wrapped around in msgpack-c
    return add_scalar(Extension{static_cast<std::int8_t>(data[0]), {data + 1, data + size}});
  }

  bool start_array(std::uint32_t size) {
    if (size > limits_.max_values) {
      fail("a list that announces " + std::to_string(size) + " items, at most " + std::to_string(limits_.max_values) +
           " are read");
    }
    return push(Kind::list);
  }
  bool end_array() {
    List list = std::move(open_.back().list);
    open_.pop_back();
    return add(std::move(list));
  }

  bool start_map(std::uint32_t size) {
    if (size > limits_.max_values) {
      fail("a map that announces " + std::to_string(size) + " entries, at most " + std::to_string(limits_.max_values) +
           " are read");
    }
    return push(Kind::map);
  }
  bool start_map_key() {
    in_key_ = true;
    return true;
  }
  bool end_map_key() {
    in_key_ = false;
    return true;
  }
  bool end_map() {
    Container map = std::move(open_.back());
    open_.pop_back();
    if (map.marked.contains("__ndarray__")) return add(array_from(map.marked));
    if (map.marked.contains("__npgeneric__")) return add(scalar_from(map.marked));
    return add(map.entries.take());
  }

  void parse_error(std::size_t /*parsed*/, std::size_t offset) const {
    fail("byte " + std::to_string(offset) + " is not msgpack");
  }
  void insufficient_bytes(std::size_t /*parsed*/, std::size_t offset) const {
    fail("the bytes end in the middle of a value, at byte " + std::to_string(offset));
  }

  Value take_root() { return std::move(root_); }

 private:
  enum class Kind { list, map };
  using Marked = std::map<std::string, Value, std::less<>>;  // entries under binary keys

  struct Container {
    Kind kind = Kind::list;
    List list;
    Entries entries;
    Marked marked;
    std::string key;  // of the entry being read
    bool key_is_binary = false;
  };

  [[noreturn]] void fail(const std::string& found) const {
    std::string path = place_;
    for (const Container& container : open_) {
      if (container.kind == Kind::list) {
        path += "[" + std::to_string(container.list.items.size()) + "]";
      } else if (!in_key_ || &container != &open_.back()) {
        path += (path.empty() ? "" : "/") + clipped(container.key);
      }
    }
    throw ProtocolError((path.empty() ? "message" : "'" + clipped(path) + "'") + ": " + found);
  }

  bool set_key(std::string_view key, bool is_binary) {
    open_.back().key = key;
    open_.back().key_is_binary = is_binary;
    return true;
  }

  bool push(Kind kind) {
    if (in_key_) fail("a map key that is a list or a map, expected str or bin");
    const std::size_t around = open_.size() + (place_.empty() ? 0 : 1);  // a field stands in the message
    if (around >= limits_.max_depth) {
      fail("maps and lists nested deeper than " + std::to_string(limits_.max_depth));
    }
    open_.emplace_back().kind = kind;
    return true;
  }

  bool add_scalar(Value value) {
    if (in_key_) fail("a map key of type " + type_name(value) + ", expected str or bin");
    return add(std::move(value));
  }

  bool add(Value value) {
    if (++value_count_ > limits_.max_values) {
      fail("more than " + std::to_string(limits_.max_values) + " values");
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return true;
    }
    Container& parent = open_.back();
    if (parent.kind == Kind::list) {
      parent.list.items.push_back(std::move(value));
    } else if (parent.key_is_binary) {
      parent.marked.insert_or_assign(parent.key, std::move(value));
    } else {
      parent.entries.set(parent.key, std::move(value));
    }
    return true;
  }

  template <typename T>
  T& field(Marked& marked, std::string_view array, std::string_view name, std::string_view expected) const {
    const auto entry = marked.find(name);
    T* value = entry == marked.end() ? nullptr : std::get_if<T>(&entry->second);
    if (!value) {
      fail("the " + std::string(array) + "'s " + std::string(name) + " is " +
           (entry == marked.end() ? "missing" : type_name(entry->second)) + ", expected " + std::string(expected));
    }
    return *value;
  }

  WireDType dtype_of(Marked& marked, std::string_view array) const {
    const auto entry = marked.find("dtype");  // as bin where a client's msgpack packs str so
    const auto* bytes = entry == marked.end() ? nullptr : std::get_if<Bytes>(&entry->second);
    const std::string text = bytes != nullptr ? std::string(bytes->data.begin(), bytes->data.end())
                                              : field<std::string>(marked, array, "dtype", "str");
    const auto wire = parse_dtype(text);
    if (!wire) {
      fail("dtype '" + clipped(text) +
           "', expected bool, integers, float16, float32, float64 or strings of fixed length");
    }
    return *wire;
  }

  NdArray array_from(Marked& marked) const {
    const WireDType wire = dtype_of(marked, "array");
    NdArray array{wire.dtype, {}, std::move(field<Bytes>(marked, "array", "data", "bin").data)};
    const List& shape = field<List>(marked, "array", "shape", "a list of sizes");
    if (shape.items.size() > max_axes) {
      fail("an array of " + std::to_string(shape.items.size()) + " axes, at most " + std::to_string(max_axes) +
           " are read");
    }
    for (const Value& size : shape.items) {
      const auto* axis = std::get_if<std::int64_t>(&size);
      if (!axis) fail("a size of type " + type_name(size) + " in an array's shape, expected int");
      array.shape.push_back(*axis);
    }
    const auto needed = byte_count(array.dtype, array.shape);
    if (!needed) fail("a shape that no array can have: " + type_name(array));
    if (static_cast<std::uint64_t>(*needed) != array.data.size()) {
      fail(std::to_string(array.data.size()) + " bytes of data, expected " + std::to_string(*needed) + " for a " +
           type_name(array));
    }
    if (wire.swapped) swap_bytes(array);
    return array;
  }

  NdArray scalar_from(Marked& marked) const {
    const DType dtype = dtype_of(marked, "scalar").dtype;
    const auto data = marked.find("data");
    if (data == marked.end()) fail("the scalar's data is missing, expected a number");
    NdArray scalar{dtype, {}, {}};
    if (dtype.kind == 'U' || dtype.kind == 'S' || !store_number(scalar, data->second)) {
      fail("a " + dtype_name(dtype) + " scalar whose data is " + type_name(data->second) +
           ", expected a number of that type");
    }
    return scalar;
  }

  const DecodeLimits& limits_;
  const std::string place_;
  std::vector<Container> open_;  // the maps and lists around the current value
  Value root_;
  std::size_t value_count_ = 0;
  bool in_key_ = false;
};

// Walks over a value that nobody reads: msgpack within the limits of depth, with text in UTF-8.
class Skipper : public msgpack::null_visitor {
 public:
  Skipper(const DecodeLimits& limits, const std::string& key) : limits_(limits), key_(key) {}

  bool visit_str(const char* data, std::uint32_t size) const {
    if (!is_utf8({data, size})) fail("a string that is not UTF-8");
    return true;
  }
  bool visit_ext(const char* /*data*/, std::uint32_t size) const {
    if (size == 0) fail("an extension of 4 GiB");  // as for Builder
    return true;
  }
  bool start_array(std::uint32_t /*size*/) { return deeper(); }
  bool start_map(std::uint32_t /*size*/) { return deeper(); }
  bool end_array() { return higher(); }
  bool end_map() { return higher(); }
  void parse_error(std::size_t /*parsed*/, std::size_t offset) const {
    fail("byte " + std::to_string(offset) + " is not msgpack");
  }
  void insufficient_bytes(std::size_t /*parsed*/, std::size_t offset) const {
    fail("the bytes end in the middle of a value, at byte " + std::to_string(offset));
  }

 private:
  [[noreturn]] void fail(const std::string& found) const { throw ProtocolError("'" + clipped(key_) + "': " + found); }
  bool deeper() {
    if (++depth_ >= limits_.max_depth) {  // one is the message
      fail("maps and lists nested deeper than " + std::to_string(limits_.max_depth));
    }
    return true;
  }
  bool higher() {
    --depth_;
    return true;
  }

  const DecodeLimits& limits_;
  const std::string& key_;
  std::size_t depth_ = 0;
};

// Reads a message's bytes one value after the other.
class Reader {
 public:
  explicit Reader(std::span<const std::uint8_t> message) : message_(message) {}

  std::size_t left() const { return message_.size() - offset_; }

  // How many entries follow; nothing when no map comes.
  std::optional<std::uint32_t> map_header() {
    if (left() == 0) return std::nullopt;
    const std::uint8_t first = message_[offset_];
    const std::size_t length_bytes = first == 0xDE ? 2 : first == 0xDF ? 4 : 0;
    if ((length_bytes == 0 && (first & 0xF0) != 0x80) || left() < 1 + length_bytes) return std::nullopt;
    std::uint32_t entries = first & 0x0F;
    if (length_bytes > 0) entries = 0;
    for (std::size_t i = 1; i <= length_bytes; ++i) entries = entries << 8 | message_[offset_ + i];
    offset_ += 1 + length_bytes;
    return entries;
  }

  template <class Visitor>
  void visit(Visitor& visitor) {
    msgpack::parse(reinterpret_cast<const char*>(message_.data()), message_.size(), offset_, visitor);
  }

  Value build(const DecodeLimits& limits, const std::string& place = "") {
    Builder builder(limits, place);
    visit(builder);
    return builder.take_root();
  }

  Packed skip(const DecodeLimits& limits, const std::string& key) {
    const std::size_t start = offset_;
    Skipper skipper(limits, key);
    visit(skipper);
    return {{message_.begin() + static_cast<std::ptrdiff_t>(start),
             message_.begin() + static_cast<std::ptrdiff_t>(offset_)}};
  }

  void finish() const {
    if (left() > 0) throw ProtocolError("message: " + std::to_string(left()) + " bytes follow the msgpack value");
  }

 private:
  std::span<const std::uint8_t> message_;
  std::size_t offset_ = 0;
};

Dict decode_all(std::span<const std::uint8_t> message, const DecodeLimits& limits) {
  Reader reader(message);
  Value root = reader.build(limits);
  reader.finish();
  auto* dict = std::get_if<Dict>(&root);
  if (!dict) throw ProtocolError("message: found " + type_name(root) + ", expected a map");
  return std::move(*dict);
}

Dict decode_fields(std::span<const std::uint8_t> message, const DecodeLimits& limits) {
  Reader reader(message);
  const std::optional<std::uint32_t> count = reader.map_header();
  if (!count) return decode_all(message, limits);  // which says what it is instead
  Entries entries;
  for (std::uint32_t i = 0; i < *count; ++i) {
    Value key = reader.build(limits);
    auto* text = std::get_if<std::string>(&key);
    if (text == nullptr && !std::holds_alternative<Bytes>(key)) {
      throw ProtocolError("message: a map key of type " + type_name(key) + ", expected str or bin");
    }
    if (text == nullptr) {  // no field of a request has such a name
      reader.skip(limits, "<binary>");
      continue;
    }
    const bool is_read = std::ranges::find(limits.fields, *text) != limits.fields.end();
    Value value = is_read ? reader.build(limits, clipped(*text)) : Value(reader.skip(limits, *text));
    entries.set(*text, std::move(value));
  }
  reader.finish();
  return entries.take();
}

struct Sink {
  std::vector<std::uint8_t> bytes;
  void write(const char* data, std::size_t size) { bytes.insert(bytes.end(), data, data + size); }
};

std::uint32_t length(std::size_t size) {
  if (!std::in_range<std::uint32_t>(size)) {
    throw ProtocolError("message: " + std::to_string(size) + " bytes or items in one value, " +
                        "msgpack holds less than 4 GiB");
  }
  return static_cast<std::uint32_t>(size);
}

class Writer {
 public:
  std::vector<std::uint8_t> take() { return std::move(sink_.bytes); }

  void write(const Value& value) { std::visit(*this, value); }

  void operator()(std::monostate) { packer_.pack_nil(); }
  void operator()(bool v) { v ? packer_.pack_true() : packer_.pack_false(); }
  void operator()(std::int64_t v) { packer_.pack_int64(v); }
  void operator()(std::uint64_t v) { packer_.pack_uint64(v); }
  void operator()(double v) {  // not pack_double(), which packs 2.0 as an integer
    std::array<char, 9> bytes{'\xcb'};
    std::memcpy(&bytes[1], &v, sizeof(v));
    std::reverse(bytes.begin() + 1, bytes.end());
    sink_.write(bytes.data(), bytes.size());
  }
  void operator()(const std::string& v) { text(v); }
  void operator()(const Bytes& v) { binary(v.data.data(), v.data.size()); }

  void operator()(const List& list) {
    packer_.pack_array(length(list.items.size()));
    for (const Value& item : list.items) write(item);
  }

  void operator()(const Dict& dict) {
    packer_.pack_map(length(dict.entries().size()));
    for (const auto& [key, value] : dict.entries()) {
      text(key);
      write(value);
    }
  }

  void operator()(const NdArray& array) {
    const auto needed = byte_count(array.dtype, array.shape);
    if (!is_supported(array.dtype) || !needed || static_cast<std::uint64_t>(*needed) != array.data.size()) {
      throw ProtocolError("message: " + std::to_string(array.data.size()) + " bytes of data do not make a " +
                          type_name(array));
    }
    packer_.pack_map(4);
    binary("__ndarray__");
    packer_.pack_true();
    binary("data");
    binary(array.data.data(), array.data.size());
    binary("dtype");
    text(dtype_str(array.dtype));
    binary("shape");
    packer_.pack_array(length(array.shape.size()));
    for (const std::int64_t size : array.shape) packer_.pack_int64(size);
  }

  void operator()(const Packed& v) { sink_.bytes.insert(sink_.bytes.end(), v.data.begin(), v.data.end()); }

  void operator()(const Extension& v) {
    packer_.pack_ext(length(v.data.size()), v.type);
    packer_.pack_ext_body(reinterpret_cast<const char*>(v.data.data()), length(v.data.size()));
  }

 private:
  void text(std::string_view v) {
    packer_.pack_str(length(v.size()));
    packer_.pack_str_body(v.data(), length(v.size()));
  }
  void binary(const void* data, std::size_t size) {
    packer_.pack_bin(length(size));
    packer_.pack_bin_body(static_cast<const char*>(data), length(size));
  }
  void binary(std::string_view v) { binary(v.data(), v.size()); }

  Sink sink_;
  msgpack::packer<Sink> packer_{sink_};
};

}  // namespace

bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto lead = static_cast<std::uint8_t>(text[at]);
    if (lead < 0x80) {
      ++at;
      continue;
    }
    const std::size_t size = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (size == 0 || lead > 0xF4 || text.size() - at < size) return false;
    char32_t code = lead & (0x7F >> size);
    for (std::size_t i = 1; i < size; ++i) {
      const auto next = static_cast<std::uint8_t>(text[at + i]);
      if ((next & 0xC0) != 0x80) return false;
      code = (code << 6) | (next & 0x3F);
    }
    constexpr std::array<char32_t, 5> smallest{0, 0, 0x80, 0x800, 0x10000};
    const bool is_surrogate = code >= 0xD800 && code <= 0xDFFF;
    if (code < smallest[size] || code > 0x10FFFF || is_surrogate) return false;
    at += size;
  }
  return true;
}

Dict decode(std::span<const std::uint8_t> message, const DecodeLimits& limits) {
  return limits.fields.empty() ? decode_all(message, limits) : decode_fields(message, limits);
}

std::vector<std::uint8_t> encode(const Dict& message) {
  Writer writer;
  writer(message);
  return writer.take();
}

}  // namespace pi0::protocol
