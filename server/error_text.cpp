#include "server/error_text.h"

#include "protocol/utf8.h"

namespace pi0::server {

std::string error_text(const std::exception& error) {
  std::string text = error.what();
  if (text.empty()) text = "the request failed without an error message";
  const bool is_utf8 = protocol::is_utf8(text);
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) c = ' ';
    if (byte >= 0x80 && !is_utf8) c = '?';
  }
  return text;
}

}  // namespace pi0::server
