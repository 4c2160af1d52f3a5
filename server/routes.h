// Plain HTTP requests that are answered beside the WebSocket: by path, whatever query follows it; no body is read.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace pi0::server {

struct HttpResponse {
  unsigned status = 200;
  std::string body;
  std::string content_type = "text/plain; charset=utf-8";
  std::string allow = {};  // of a 405: the methods that the path answers
};

enum class Access { open, with_key };  // with_key: when the server has an API key

struct Route {
  std::string method;                     // "GET", which answers HEAD too
  std::string path;                       // "/healthz"
  std::function<HttpResponse()> respond;  // on the network thread: must be quick
  Access access = Access::with_key;
};

using Routes = std::vector<Route>;

}  // namespace pi0::server
