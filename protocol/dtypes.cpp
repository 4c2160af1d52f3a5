#include "protocol/dtypes.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <system_error>

namespace pi0::protocol {
namespace {

static_assert(std::endian::native == std::endian::little, "arrays are kept in little-endian order");

bool has_byte_order(const DType& dtype) { return dtype.kind != 'S' && dtype.item_size > 1; }

}  // namespace

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

std::optional<std::int64_t> byte_count(const DType& dtype, const std::vector<std::int64_t>& shape) {
  std::int64_t bytes = dtype.item_size;
  bool is_empty = false;
  for (const std::int64_t size : shape) {
    if (size < 0) return std::nullopt;
    if (size == 0) {
      is_empty = true;
    } else if (__builtin_mul_overflow(bytes, size, &bytes)) {
      return std::nullopt;
    }
  }
  return is_empty ? 0 : bytes;
}

void swap_byte_order(NdArray& array) {
  const std::int64_t unit = array.dtype.kind == 'U' ? 4 : array.dtype.item_size;
  for (auto at = array.data.begin(); at != array.data.end(); at += unit) {
    std::reverse(at, at + unit);
  }
}

}  // namespace pi0::protocol
