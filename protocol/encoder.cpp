#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <msgpack.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "protocol/dtypes.h"
#include "protocol/msgpack_numpy.h"
#include "protocol/value.h"

namespace pi0::protocol {
namespace {

struct Sink {
  std::vector<std::uint8_t> bytes;
  void write(const char* data, std::size_t size) { bytes.insert(bytes.end(), data, data + size); }
};

std::uint32_t length(std::size_t size) {
  if (!std::in_range<std::uint32_t>(size)) {
    throw ProtocolError("message: a value of " + std::to_string(size) +
                        " bytes or items, msgpack allows less than 4 GiB");
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

std::vector<std::uint8_t> encode(const Dict& message) {
  Writer writer;
  writer(message);
  return writer.take();
}

std::vector<std::uint8_t> encode(const Value& message) {
  Writer writer;
  writer.write(message);
  return writer.take();
}

}  // namespace pi0::protocol
