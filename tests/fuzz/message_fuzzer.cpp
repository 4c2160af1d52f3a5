// Whatever bytes come as a message: a ProtocolError, or values that are written and read again as the same bytes.
#include <cstdlib>
#include <span>
#include <vector>

#include "protocol/msgpack_numpy.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace pi0::protocol;
  try {
    const std::vector<std::uint8_t> written = encode(decode({bytes, size}));
    if (encode(decode(written)) != written) std::abort();
  } catch (const ProtocolError&) {
  }
  const DecodeLimits some{.fields = {"prompt", "actions", "observation/state"}};
  try {
    const std::vector<std::uint8_t> written = encode(decode({bytes, size}, some));
    if (encode(decode(written, some)) != written) std::abort();
  } catch (const ProtocolError&) {
  }
  return 0;
}
