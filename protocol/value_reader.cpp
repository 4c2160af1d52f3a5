#include "protocol/value_reader.h"

#include <cstdint>
#include <msgpack.hpp>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "protocol/dict_builder.h"
#include "protocol/numpy_values.h"
#include "protocol/utf8.h"

namespace pi0::protocol {
namespace {

// What msgpack-c calls while it walks over the bytes. `Derived` has fail(text), which throws with the field's name.
template <class Derived>
class CheckingVisitor : public msgpack::null_visitor {
 public:
  void parse_error(std::size_t /*parsed*/, std::size_t offset) const {
    fail("byte " + std::to_string(offset) + " is not msgpack");
  }
  void insufficient_bytes(std::size_t /*parsed*/, std::size_t offset) const {
    fail("the bytes end in the middle of a value, at byte " + std::to_string(offset));
  }

 protected:
  void check_text(std::string_view text) const {
    if (!is_utf8(text)) fail("a string that is not UTF-8");
  }
  void check_extension(std::uint32_t size) const {
    if (size == 0) fail("an extension of 4 GiB");  // its length wrapped around in msgpack-c
  }
  void check_size(std::string_view before, std::size_t size, std::string_view after, std::size_t most) const {
    if (size <= most) return;
    fail(std::string(before) + std::to_string(size) + std::string(after) + ", at most " + std::to_string(most) +
         " are allowed");
  }
  void check_depth(std::size_t depth, const DecodeLimits& limits) const {
    if (depth > limits.max_depth) fail("maps and lists nested deeper than " + std::to_string(limits.max_depth));
  }

 private:
  void fail(const std::string& found) const { static_cast<const Derived*>(this)->fail(found); }
};

class Builder : public CheckingVisitor<Builder> {
 public:
  Builder(const DecodeLimits& limits, const std::string& field) : limits_(limits), field_(field) {}

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
    check_size("a string of ", size, " bytes", limits_.max_string_bytes);
    check_text(text);
    if (in_key_) return set_key(text, KeyType::str);
    return add_scalar(std::string(text));
  }

  bool visit_bin(const char* data, std::uint32_t size) {
    if (in_key_) return set_key({data, size}, KeyType::bin);
    check_size("", size, " bytes of data", limits_.max_array_bytes);
    return add_scalar(Bytes{{data, data + size}});
  }

  bool visit_ext(const char* data, std::uint32_t size) {  // data starts with the type
    check_extension(size);
    return add_scalar(Extension{static_cast<std::int8_t>(data[0]), {data + 1, data + size}});
  }

  bool start_array(std::uint32_t size) {
    check_size("a list that announces ", size, " items", limits_.max_values);
    return push(Kind::list);
  }
  bool end_array() {
    List list = std::move(open_.back().list);
    open_.pop_back();
    return add(std::move(list));
  }

  bool start_map(std::uint32_t size) {
    check_size("a map that announces ", size, " entries", limits_.max_values);
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
    Dict binary_entries = open_.back().binary_entries.take(), entries = open_.back().entries.take();
    open_.pop_back();
    if (auto numpy = numpy_from(binary_entries)) return add(std::move(*numpy));
    if (auto numpy = numpy_from(entries)) return add(std::move(*numpy));  // a client's msgpack packs bytes as str
    return add(std::move(entries));
  }

  // Throws ProtocolError with the path of the value that is being read.
  [[noreturn]] void fail(const std::string& found) const {
    std::string path = field_;
    for (const Container& container : open_) {
      if (container.kind == Kind::list) {
        path += "[" + std::to_string(container.list.items.size()) + "]";
      } else if (!in_key_ || &container != &open_.back()) {
        path += (path.empty() ? "" : "/") + clipped(container.key);
      }
    }
    throw ProtocolError((path.empty() ? "message" : "'" + clipped(path) + "'") + ": " + found);
  }

  Value take_root() { return std::move(root_); }

 private:
  enum class Kind { list, map };
  enum class KeyType { str, bin };

  struct Container {
    Kind kind = Kind::list;
    List list;
    DictBuilder entries, binary_entries;
    std::string key;  // of the entry being read
    KeyType key_type = KeyType::str;
  };

  bool set_key(std::string_view key, KeyType type) {
    open_.back().key = key;
    open_.back().key_type = type;
    return true;
  }

  bool push(Kind kind) {
    if (in_key_) fail("a map key that is a list or a map, expected str or bin");
    const std::size_t around = open_.size() + (field_.empty() ? 0 : 1);  // a field is inside the message's map
    check_depth(around + 1, limits_);
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
    } else if (parent.key_type == KeyType::bin) {
      parent.binary_entries.set(parent.key, std::move(value));
    } else {
      parent.entries.set(parent.key, std::move(value));
    }
    return true;
  }

  std::optional<NdArray> numpy_from(Dict& entries) const {
    try {
      return numpy_value(entries);
    } catch (const ProtocolError& error) {
      fail(error.what());
    }
  }

  const DecodeLimits& limits_;
  const std::string& field_;
  std::vector<Container> open_;  // the maps and lists around the current value
  Value root_;
  std::size_t value_count_ = 0;
  bool in_key_ = false;
};

class Skipper : public CheckingVisitor<Skipper> {
 public:
  Skipper(const DecodeLimits& limits, const std::string& field) : limits_(limits), field_(field) {}

  bool visit_str(const char* data, std::uint32_t size) const {
    check_text({data, size});
    return true;
  }
  bool visit_ext(const char* /*data*/, std::uint32_t size) const {
    check_extension(size);
    return true;
  }
  bool start_array(std::uint32_t /*size*/) { return enter(); }
  bool start_map(std::uint32_t /*size*/) { return enter(); }
  bool end_array() { return leave(); }
  bool end_map() { return leave(); }

  [[noreturn]] void fail(const std::string& found) const { throw ProtocolError("'" + clipped(field_) + "': " + found); }

 private:
  bool enter() {
    check_depth(++depth_, limits_);
    return true;
  }
  bool leave() {
    --depth_;
    return true;
  }

  const DecodeLimits& limits_;
  const std::string& field_;
  std::size_t depth_ = 1;  // the message's own map
};

template <class Visitor>
void visit(std::span<const std::uint8_t> message, std::size_t& offset, Visitor& visitor) {
  msgpack::parse(reinterpret_cast<const char*>(message.data()), message.size(), offset, visitor);
}

}  // namespace

std::optional<std::uint32_t> ValueReader::map_header() {
  if (bytes_left() == 0) return std::nullopt;
  const std::uint8_t first = message_[offset_];
  const std::size_t length_bytes = first == 0xDE ? 2 : first == 0xDF ? 4 : 0;  // map 16, map 32
  const bool is_fixmap = (first & 0xF0) == 0x80;
  if ((length_bytes == 0 && !is_fixmap) || bytes_left() < 1 + length_bytes) return std::nullopt;
  std::uint32_t entries = is_fixmap ? first & 0x0F : 0;
  for (std::size_t i = 1; i <= length_bytes; ++i) entries = entries << 8 | message_[offset_ + i];
  offset_ += 1 + length_bytes;
  return entries;
}

Value ValueReader::build(const std::string& field) {
  Builder builder(limits_, field);
  visit(message_, offset_, builder);
  return builder.take_root();
}

Packed ValueReader::skip(const std::string& field) {
  const std::size_t start = offset_;
  Skipper skipper(limits_, field);
  visit(message_, offset_, skipper);
  const std::span<const std::uint8_t> bytes = message_.subspan(start, offset_ - start);
  return {{bytes.begin(), bytes.end()}};
}

}  // namespace pi0::protocol
