// A checksum that is computed at the speed of memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pi0::model {

// Finds damage, not forgery: any change of a single aligned word of 8 bytes changes it. The bytes of a mapped file are
// read into the process's pages on the way. Uses LibTorch's threads; their number does not matter to the result.
std::uint64_t checksum(std::span<const std::byte> bytes);

}  // namespace pi0::model
