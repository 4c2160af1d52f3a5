#include "model/policy/python_text.h"

namespace pi0::policy {
namespace {

bool continues_character(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

// str.isspace() of one character of UTF-8 text.
bool is_space(std::string_view character) {
  if (character.size() == 1) {
    const auto code = static_cast<unsigned char>(character[0]);
    return (code >= 0x09 && code <= 0x0d) || (code >= 0x1c && code <= 0x20);
  }
  for (const std::string_view space :
       {"\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007",
        "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"}) {
    if (character == space) return true;
  }
  return false;
}

void append_utf8(std::string& text, std::uint32_t code) {
  const auto put = [&](std::uint32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | code >> 6);
    put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3f));
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  }
}

}  // namespace

std::string_view python_strip(std::string_view text) {
  while (!text.empty()) {
    std::size_t length = 1;
    while (length < text.size() && continues_character(text[length])) ++length;
    if (!is_space(text.substr(0, length))) break;
    text.remove_prefix(length);
  }
  while (!text.empty()) {
    std::size_t start = text.size() - 1;
    while (start > 0 && continues_character(text[start])) --start;
    if (!is_space(text.substr(start))) break;
    text.remove_suffix(text.size() - start);
  }
  return text;
}

std::optional<std::string> text_of_utf32(std::span<const std::uint8_t> data) {
  std::string text;
  std::size_t nuls = 0;  // written only when a character follows them
  for (std::size_t i = 0; i + 4 <= data.size(); i += 4) {
    const std::uint32_t code =
        data[i] | std::uint32_t{data[i + 1]} << 8 | std::uint32_t{data[i + 2]} << 16 | std::uint32_t{data[i + 3]} << 24;
    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return std::nullopt;
    if (code == 0) {
      ++nuls;
      continue;
    }
    text.append(nuls, '\0');
    nuls = 0;
    append_utf8(text, code);
  }
  return text;
}

}  // namespace pi0::policy
