#include "tools/client/server_url.h"

#include <fmt/format.h>
#include <re2/re2.h>

#include <stdexcept>

namespace pi0::tools {

ServerUrl ServerUrl::parse(const std::string& text) {
  static const RE2 form(R"((wss?)://(?:\[([0-9A-Fa-f:.]+)\]|([^\s/:?#@\[\]]+))(?::(\d{1,5}))?(/[^\s#]*)?)");
  ServerUrl url;
  std::string scheme, address, name, path;
  if (!RE2::FullMatch(text, form, &scheme, &address, &name, &url.port, &path) ||
      (!url.port.empty() && std::stoi(url.port) > 65535)) {
    throw std::invalid_argument(fmt::format(
        "'{}' is no server's address, expected ws://HOST:PORT or wss://HOST:PORT, perhaps with a /PATH", text));
  }
  url.has_tls = scheme == "wss";
  url.host = address + name;  // one of them is empty
  if (url.port.empty()) url.port = url.has_tls ? "443" : "80";
  if (!path.empty()) url.path = path;
  return url;
}

std::string ServerUrl::authority() const {
  return host.find(':') == host.npos ? host + ":" + port : "[" + host + "]:" + port;
}

std::string ServerUrl::text() const { return (has_tls ? "wss://" : "ws://") + authority() + (path == "/" ? "" : path); }

}  // namespace pi0::tools
