// Latencies of a policy server over time, as vmstat prints them.
#pragma once

#include <memory>

#include "protocol/value.h"
#include "tools/client/policy_client.h"

namespace pi0::tools {

// Sends the request by `client` again and again and prints a line of each second, or of each request that takes longer.
// A signal ends it with a line over all; so does a reader that closes the pipe. When the server shuts down, connects
// once more by `access` and goes on. Throws as PolicyClient does.
void watch(std::unique_ptr<PolicyClient> client, const ServerAccess& access, const protocol::Dict& request);

}  // namespace pi0::tools
