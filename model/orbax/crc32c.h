// CRC-32C (Castagnoli), the checksum of OCDBT and of zarr's `crc32c`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pi0::orbax {

// The checksum of `bytes`, or of the bytes whose checksum is `before` followed by `bytes`.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0);

}  // namespace pi0::orbax
