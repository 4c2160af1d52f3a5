// NumPy dtypes as they are written in a message, and the bytes that an array of a dtype and shape takes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/value.h"

namespace pi0::protocol {

struct WireDType {
  DType dtype;
  bool is_big_endian = false;  // the data's bytes must be swapped
};

// Bool, integers of 1 to 8 bytes, float16, float32, float64, and strings of fixed length.
bool is_supported(const DType& dtype);

// Reads NumPy's dtype.str ("<f8", "|u1", ">U12"; native order if none is given) or a plain name ("float64").
// Nothing when it is malformed or not supported.
std::optional<WireDType> parse_dtype(std::string_view text);

std::string dtype_str(const DType& dtype);  // NumPy's dtype.str: "<f8"

// Bytes that an array needs. Nothing when a size is negative or the product exceeds 63 bits. As in NumPy,
// a size of zero does not make the others valid.
std::optional<std::int64_t> byte_count(const DType& dtype, const std::vector<std::int64_t>& shape);

void swap_byte_order(NdArray& array);

}  // namespace pi0::protocol
