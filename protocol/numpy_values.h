// NumPy arrays and scalars out of the maps by which clients write them: those of openpi's msgpack_numpy and those of
// the package msgpack-numpy, which has other names. Knows no msgpack bytes.
#pragma once

#include <optional>

#include "protocol/value.h"

namespace pi0::protocol {

// The array or scalar that a map's entries describe; nothing when they have neither __ndarray__ nor __npgeneric__ nor
// msgpack-numpy's nd, type and data. Moves the data out of the entries. Throws ProtocolError that says what is wrong
// without naming the field.
std::optional<NdArray> numpy_value(Dict& entries);

}  // namespace pi0::protocol
