// NumPy arrays and scalars out of the maps by which openpi's msgpack_numpy writes them. Knows no msgpack bytes.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "protocol/value.h"

namespace pi0::protocol {

using BinaryEntries = std::map<std::string, Value, std::less<>>;  // a map's entries under binary keys

// The array or scalar that the entries describe; nothing when they have neither __ndarray__ nor __npgeneric__.
// Moves the data out of the entries. Throws ProtocolError that says what is wrong without naming the field.
std::optional<NdArray> numpy_value(BinaryEntries& entries);

}  // namespace pi0::protocol
