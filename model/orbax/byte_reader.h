// Reads numbers and bytes from a block in memory whose content may be wrong or hostile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pi0::orbax {

// Every function throws CheckpointError that names the source when the block ends too early.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string source) : bytes_(bytes), source_(std::move(source)) {}

  std::uint8_t u8();
  std::uint32_t u32();     // little-endian, as are all but the next
  std::uint32_t u32_be();  // big-endian
  std::uint64_t u64();
  std::uint64_t varint();  // groups of 7 bits, the lowest first
  // How many of something that takes at least one byte each: a varint, at most the bytes that are left.
  std::size_t count(const char* of_what);
  std::vector<std::uint64_t> varints(std::size_t count);
  std::span<const std::byte> take(std::uint64_t size);
  std::string_view text(std::uint64_t size);
  std::span<const std::byte> rest() const { return bytes_.subspan(position_); }

  [[noreturn]] void refuse(const std::string& what) const;

 private:
  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  std::string source_;
};

// Whether a name may appear in messages and JSON: ASCII without control characters.
bool is_printable(std::string_view name);

}  // namespace pi0::orbax
