// A client of a policy server, as openpi's WebsocketClientPolicy: one request at a time, blocking.
#pragma once

#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>

#include "protocol/value.h"
#include "tools/client/server_url.h"

namespace pi0::tools {

struct ServerAccess {
  ServerUrl url;
  std::string api_key;           // empty: none is sent
  std::filesystem::path tls_ca;  // PEM, of the authority that signed the server's certificate; empty: the system's
};

// The server closed the connection because it shuts down. The request has no answer; another connection may get one.
class ServerShutDown : public std::runtime_error {
  using runtime_error::runtime_error;
};

class PolicyClient {
 public:
  // Connects and reads the server's metadata. Throws std::runtime_error that names the address and says why there is no
  // connection, and what may help.
  explicit PolicyClient(const ServerAccess& access);
  ~PolicyClient();

  const protocol::Dict& metadata() const;

  // Sends a request and waits for its answer, however long it takes. Throws ServerShutDown, or std::runtime_error with
  // the server's message when it refuses, or when the connection ends.
  protocol::Dict infer(const protocol::Dict& request);

 private:
  struct Connection;
  std::unique_ptr<Connection> connection_;
};

}  // namespace pi0::tools
