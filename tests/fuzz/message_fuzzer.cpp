// Whatever bytes come as a message: a ProtocolError, or values that are written and read again as the same bytes.
#include <cstdlib>
#include <span>
#include <vector>

#include "protocol/msgpack_numpy.h"
#include "protocol/openpi_messages.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace pi0::protocol;
  try {
    const std::vector<std::uint8_t> written = encode(decode({bytes, size}));
    if (encode(decode(written)) != written) std::abort();
  } catch (const ProtocolError&) {
  }
  const DecodeLimits some{.fields = {"prompt", "actions", "observation/state", "endpoint"}};
  try {
    Dict message = decode({bytes, size}, some);
    const std::vector<std::uint8_t> written = encode(message);
    if (encode(decode(written, some)) != written) std::abort();
    take_endpoint(message);
    if (message.find(endpoint_key) != nullptr) std::abort();
  } catch (const ProtocolError&) {
  }
  return 0;
}
