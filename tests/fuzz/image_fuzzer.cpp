// Whatever bytes come as an image: pixels within the limit, or an error.
#include <cstdlib>
#include <span>
#include <stdexcept>

#include "model/policy/compressed_image.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  constexpr std::size_t most = std::size_t{1} << 20;
  try {
    const pi0::policy::Image image = pi0::policy::decompressed({bytes, size}, most);
    const std::uint64_t expected =
        static_cast<std::uint64_t>(image.height) * static_cast<std::uint64_t>(image.width) * 3;
    if (image.pixels.empty() || image.pixels.size() > most || image.pixels.size() != expected) std::abort();
  } catch (const std::invalid_argument&) {
  }
  return 0;
}
