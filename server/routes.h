// Plain HTTP requests on the server's port. A route is chosen by method and path; its query and body are not read.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace pi0::server {

struct HttpResponse {
  unsigned status = 200;
  std::string body;
  std::string content_type = "text/plain; charset=utf-8";
  std::string allow = {};  // with 405, and for OPTIONS: the methods that the path has
};

enum class Access { open, with_key };  // with_key: needs the API key, if the server has one

struct Route {
  std::string method;                     // "GET", which also answers HEAD
  std::string path;                       // "/healthz"
  std::function<HttpResponse()> respond;  // on the network thread: must be quick
  Access access = Access::with_key;
};

using Routes = std::vector<Route>;

}  // namespace pi0::server
