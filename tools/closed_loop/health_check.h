// Whether a server on this machine answers GET /healthz.
#pragma once

#include <cstdint>

namespace pi0::tools {

// Waits up to two seconds for the answer.
bool is_healthy(std::uint16_t port);

}  // namespace pi0::tools
