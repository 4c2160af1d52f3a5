#include "server/event_log.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>

#include "protocol/utf8.h"

namespace pi0::server {
namespace {

constexpr std::size_t lines_per_flush = 10;  // of one kind

struct Range {
  char32_t first, last;
};

// Control and formatting characters, line and paragraph separators: Cc, Cf, Zl and Zp of Unicode 15.
constexpr std::array invisible = {Range{0x00, 0x1F},       Range{0x7F, 0x9F},       Range{0xAD, 0xAD},
                                  Range{0x600, 0x605},     Range{0x61C, 0x61C},     Range{0x6DD, 0x6DD},
                                  Range{0x70F, 0x70F},     Range{0x890, 0x891},     Range{0x8E2, 0x8E2},
                                  Range{0x180E, 0x180E},   Range{0x200B, 0x200F},   Range{0x2028, 0x202E},
                                  Range{0x2060, 0x206F},   Range{0xFEFF, 0xFEFF},   Range{0xFFF9, 0xFFFB},
                                  Range{0x110BD, 0x110BD}, Range{0x110CD, 0x110CD}, Range{0x13430, 0x1343F},
                                  Range{0x1BCA0, 0x1BCA3}, Range{0x1D173, 0x1D17A}, Range{0xE0001, 0xE007F}};

bool is_invisible(char32_t code) {
  return std::ranges::any_of(invisible, [&](Range range) { return code >= range.first && code <= range.last; });
}

// The bytes of the character that begins with this one, in valid UTF-8.
std::size_t length_of(std::uint8_t lead) { return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4; }

char32_t code_of(std::string_view character) {
  const auto lead = static_cast<std::uint8_t>(character[0]);
  char32_t code = character.size() == 1 ? lead : lead & (0x7F >> character.size());
  for (const char next : character.substr(1)) code = code << 6 | (static_cast<std::uint8_t>(next) & 0x3F);
  return code;
}

}  // namespace

std::string log_text(std::string_view text) {
  constexpr std::size_t longest = 200;
  std::string shown;
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size(); ++count) {
    if (count == longest) return shown + "...";
    std::string_view character = text.substr(at, length_of(static_cast<std::uint8_t>(text[at])));
    if (!protocol::is_utf8(character)) {
      shown += '?';
      ++at;
      continue;
    }
    at += character.size();
    if (const char32_t code = code_of(character); is_invisible(code)) {
      std::array<char, 16> escape{};
      std::snprintf(escape.data(), escape.size(), "\\u{%x}", static_cast<unsigned>(code));
      shown += escape.data();
    } else {
      shown += character;
    }
  }
  return shown;
}

void EventLog::add(spdlog::level::level_enum level, const std::string& kind, const std::string& line) {
  Seen& seen = seen_[kind];
  seen.level = level;
  if (++seen.count <= lines_per_flush) spdlog::log(level, "{}", line);
}

void EventLog::flush() {
  for (const auto& [kind, seen] : seen_) {
    if (seen.count > lines_per_flush) spdlog::log(seen.level, "and {} more {}", seen.count - lines_per_flush, kind);
  }
  seen_.clear();
}

}  // namespace pi0::server
