#include "model/orbax/byte_reader.h"

#include <algorithm>

#include "model/checkpoint_error.h"

namespace pi0::orbax {

void ByteReader::refuse(const std::string& what) const { throw model::CheckpointError(source_ + ": " + what); }

std::span<const std::byte> ByteReader::take(std::uint64_t size) {
  if (size > bytes_.size() - position_) {
    refuse("ends too early: " + std::to_string(size) + " bytes expected at byte " + std::to_string(position_) +
           ", found " + std::to_string(bytes_.size() - position_));
  }
  position_ += size;
  return bytes_.subspan(position_ - size, size);
}

std::string_view ByteReader::text(std::uint64_t size) {
  const std::span<const std::byte> taken = take(size);
  return {reinterpret_cast<const char*>(taken.data()), taken.size()};
}

std::uint8_t ByteReader::u8() { return std::to_integer<std::uint8_t>(take(1)[0]); }

std::uint32_t ByteReader::u32() {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value |= static_cast<std::uint32_t>(u8()) << (8 * i);
  return value;
}

std::uint32_t ByteReader::u32_be() { return __builtin_bswap32(u32()); }

std::uint64_t ByteReader::u64() {
  const std::uint64_t low = u32();
  return low | static_cast<std::uint64_t>(u32()) << 32;
}

std::uint64_t ByteReader::varint() {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const std::uint64_t group = u8();
    if (shift == 63 && group > 1) break;
    value |= (group & 127) << shift;
    if (group < 128) return value;
  }
  refuse("has a number of more than 64 bits before byte " + std::to_string(position_));
}

std::size_t ByteReader::count(const char* of_what) {
  const std::uint64_t found = varint();
  if (found > bytes_.size() - position_) {
    refuse("announces " + std::to_string(found) + " " + of_what + ", but only " +
           std::to_string(bytes_.size() - position_) + " bytes follow");
  }
  return found;
}

std::vector<std::uint64_t> ByteReader::varints(std::size_t count) {
  std::vector<std::uint64_t> values;
  values.reserve(count);
  for (std::size_t i = 0; i < count; ++i) values.push_back(varint());
  return values;
}

bool is_printable(std::string_view name) {
  return std::ranges::all_of(name, [](char c) { return c >= ' ' && c <= '~'; });
}

}  // namespace pi0::orbax
