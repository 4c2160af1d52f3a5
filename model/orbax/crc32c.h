// CRC-32C (Castagnoli), the checksum of OCDBT and of zarr's `crc32c`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pi0::orbax {

// Of the bytes before, whose checksum is `before`, and these.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0);

}  // namespace pi0::orbax
