// A client of a policy server, as openpi's WebsocketClientPolicy: one request at a time, blocking.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "protocol/value.h"

namespace pi0::tools {

class PolicyClient {
 public:
  // Connects and reads the server's metadata. Throws std::runtime_error that names host and port.
  PolicyClient(const std::string& host, std::uint16_t port);
  ~PolicyClient();

  const protocol::Dict& metadata() const;

  // Sends a request and waits for its answer. If the server refuses, throws std::runtime_error
  // with its message and closes the connection.
  protocol::Dict infer(const protocol::Dict& request);

 private:
  struct Connection;
  std::unique_ptr<Connection> connection_;
};

}  // namespace pi0::tools
