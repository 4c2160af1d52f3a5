// Which route answers a plain HTTP request, and the responses to requests that have none.
#pragma once

#include <optional>

#include "server/handshake.h"
#include "server/routes.h"

namespace pi0::server {

// The route of the request's method and path; null when there is none. Ignores a query, and scheme and host of an
// absolute address (RFC 9112 3.2.2). A WebSocket upgrade with either has no route, whatever its path, as with openpi's
// server.
const Route* route_of(const Routes& routes, const Request& request);

// The response to a request without a route: 405 with the methods that its path has, or 426 with the list of routes.
// Nothing for a request that asks for an upgrade.
std::optional<HttpResponse> refuse_plain_request(const Routes& routes, const Request& request);

}  // namespace pi0::server
