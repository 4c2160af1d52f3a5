#include "protocol/numpy_values.h"

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include "protocol/dtypes.h"
#include "protocol/msgpack_numpy.h"
#include "protocol/utf8.h"

namespace pi0::protocol {
namespace {

constexpr std::size_t max_axes = 32;  // NumPy 1's limit

// Rounds to the nearest IEEE half, ties to even; C++20 has no such type.
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

// Each store_ function converts a number to the scalar's dtype; false when the value is no number or does not fit.
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

template <typename Signed, typename Unsigned>
bool store_either(NdArray& scalar, const Value& value) {
  return scalar.dtype.kind == 'i' ? store_integer<Signed>(scalar, value) : store_integer<Unsigned>(scalar, value);
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
  if (scalar.dtype.kind == 'f') return store_float(scalar, value);
  if (scalar.dtype.kind == 'b') {
    const auto* flag = std::get_if<bool>(&value);
    if (flag) store(scalar, *flag);
    return flag != nullptr;
  }
  switch (scalar.dtype.item_size) {
    case 1:
      return store_either<std::int8_t, std::uint8_t>(scalar, value);
    case 2:
      return store_either<std::int16_t, std::uint16_t>(scalar, value);
    case 4:
      return store_either<std::int32_t, std::uint32_t>(scalar, value);
    default:
      return store_either<std::int64_t, std::uint64_t>(scalar, value);
  }
}

// `kind` is "array" or "scalar", for the message.
template <typename T>
T& entry(Dict& entries, std::string_view kind, std::string_view name, std::string_view expected) {
  Value* const found = entries.find(name);
  T* const value = found == nullptr ? nullptr : std::get_if<T>(found);
  if (!value) {
    throw ProtocolError("the " + std::string(kind) + "'s " + std::string(name) + " is " +
                        (found == nullptr ? "missing" : type_name(*found)) + ", expected " + std::string(expected));
  }
  return *value;
}

// `name` is the entry's.
WireDType dtype_of(Dict& entries, std::string_view kind, std::string_view name) {
  const Value* const found = entries.find(name);  // bin where a client's msgpack packs str as bin
  const auto* bytes = found == nullptr ? nullptr : std::get_if<Bytes>(found);
  const std::string text = bytes != nullptr ? std::string(bytes->data.begin(), bytes->data.end())
                                            : entry<std::string>(entries, kind, name, "str");
  const auto wire = parse_dtype(text);
  if (!wire) {
    throw ProtocolError("dtype '" + clipped(text) +
                        "', expected bool, integers, float16, float32, float64 or strings of fixed length");
  }
  return *wire;
}

std::vector<std::int64_t> shape_of(Dict& entries) {
  const List& sizes = entry<List>(entries, "array", "shape", "a list of sizes");
  if (sizes.items.size() > max_axes) {
    throw ProtocolError("an array of " + std::to_string(sizes.items.size()) + " axes, at most " +
                        std::to_string(max_axes) + " are allowed");
  }
  std::vector<std::int64_t> shape;
  for (const Value& size : sizes.items) {
    const auto* axis = std::get_if<std::int64_t>(&size);
    if (!axis) throw ProtocolError("a size of type " + type_name(size) + " in an array's shape, expected int");
    shape.push_back(*axis);
  }
  return shape;
}

NdArray array_of(const WireDType& wire, std::vector<std::int64_t> shape, std::vector<std::uint8_t> data) {
  NdArray array{wire.dtype, std::move(shape), std::move(data)};
  const auto needed = byte_count(array.dtype, array.shape);
  if (!needed) throw ProtocolError("a shape that no array can have: " + type_name(array));
  if (static_cast<std::uint64_t>(*needed) != array.data.size()) {
    throw ProtocolError(std::to_string(array.data.size()) + " bytes of data, expected " + std::to_string(*needed) +
                        " for a " + type_name(array));
  }
  if (wire.is_big_endian) swap_byte_order(array);
  return array;
}

NdArray array_from(Dict& entries, std::string_view dtype_key) {
  const WireDType wire = dtype_of(entries, "array", dtype_key);
  std::vector<std::uint8_t>& data = entry<Bytes>(entries, "array", "data", "bin").data;
  return array_of(wire, shape_of(entries), std::move(data));
}

NdArray scalar_from(Dict& entries) {
  const DType dtype = dtype_of(entries, "scalar", "dtype").dtype;
  const Value* const data = entries.find("data");
  if (data == nullptr) throw ProtocolError("the scalar's data is missing, expected a number");
  NdArray scalar{dtype, {}, {}};
  if (dtype.kind == 'U' || dtype.kind == 'S' || !store_number(scalar, *data)) {
    throw ProtocolError("a " + dtype_name(dtype) + " scalar whose data is " + type_name(*data) +
                        ", expected a number of that type");
  }
  return scalar;
}

// What the package msgpack-numpy writes: {nd: true, type, kind, shape, data} and, for a scalar, {nd: false, type, data}
// with the scalar's bytes. Its decoder takes a map without one of these for a plain one.
std::optional<NdArray> package_value(Dict& entries) {
  const Value* const nd = entries.find("nd");
  const bool* const is_array = nd == nullptr ? nullptr : std::get_if<bool>(nd);
  if (is_array == nullptr || entries.find("type") == nullptr || entries.find("data") == nullptr) return std::nullopt;
  if (*is_array) return array_from(entries, "type");
  return array_of(dtype_of(entries, "scalar", "type"), {},
                  std::move(entry<Bytes>(entries, "scalar", "data", "bin").data));
}

}  // namespace

std::optional<NdArray> numpy_value(Dict& entries) {
  if (entries.find("__ndarray__") != nullptr) return array_from(entries, "dtype");
  if (entries.find("__npgeneric__") != nullptr) return scalar_from(entries);
  return package_value(entries);
}

}  // namespace pi0::protocol
