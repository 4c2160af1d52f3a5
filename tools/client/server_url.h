// The address of a policy server, as openpi's clients take it: ws://host:8000 or wss://host/path.
#pragma once

#include <string>

namespace pi0::tools {

struct ServerUrl {
  bool has_tls = false;
  std::string host;  // a name or an address; IPv6 without its brackets
  std::string port;
  std::string path = "/";

  // Throws std::invalid_argument that says what was found and what was expected.
  static ServerUrl parse(const std::string& text);

  std::string authority() const;  // host:port, as in the header Host
  std::string text() const;
};

}  // namespace pi0::tools
