#include "protocol/utf8.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace pi0::protocol {

bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto lead = static_cast<std::uint8_t>(text[at]);
    if (lead < 0x80) {
      ++at;
      continue;
    }
    const std::size_t size = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (size == 0 || lead > 0xF4 || text.size() - at < size) return false;
    char32_t code = lead & (0x7F >> size);
    for (std::size_t i = 1; i < size; ++i) {
      const auto next = static_cast<std::uint8_t>(text[at + i]);
      if ((next & 0xC0) != 0x80) return false;
      code = (code << 6) | (next & 0x3F);
    }
    constexpr std::array<char32_t, 5> smallest{0, 0, 0x80, 0x800, 0x10000};
    const bool is_surrogate = code >= 0xD800 && code <= 0xDFFF;
    if (code < smallest[size] || code > 0x10FFFF || is_surrogate) return false;
    at += size;
  }
  return true;
}

std::string clipped(std::string_view text) {
  constexpr std::size_t longest = 80;
  if (!is_utf8(text)) return "<binary>";
  if (text.size() <= longest) return std::string(text);
  std::size_t end = longest;
  while ((text[end] & 0xC0) == 0x80) --end;  // not inside a character
  return std::string(text.substr(0, end)) + "...";
}

}  // namespace pi0::protocol
