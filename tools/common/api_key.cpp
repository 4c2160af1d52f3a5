#include "tools/common/api_key.h"

#include <algorithm>
#include <stdexcept>

#include "model/text_file.h"

namespace pi0::tools {

std::string read_api_key(const std::filesystem::path& file) {
  std::string key = model::read_file(file);
  while (key.ends_with('\n') || key.ends_with('\r')) key.pop_back();
  const bool is_plain = std::ranges::all_of(key, [](unsigned char c) { return c > 0x20 && c < 0x7F; });
  if (!key.empty() && is_plain) return key;
  throw std::runtime_error(file.string() + ": found " +
                           (key.empty() ? "nothing" : "blanks, control characters or non-ASCII characters") +
                           ", expected an API key on one line");
}

}  // namespace pi0::tools
