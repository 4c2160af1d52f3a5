// Which route answers a plain HTTP request, and what the others are told.
#pragma once

#include <optional>

#include "server/handshake.h"
#include "server/routes.h"

namespace pi0::server {

// The route of the request's path and method; null when there is none. A query does not count, nor does where the path
// stands in an absolute address (RFC 9112 3.2.2). Upgrades with a query are WebSockets whatever their path, as at
// openpi's.
const Route* route_of(const Routes& routes, const Request& request);

// What a request that has no route is told, unless it asks for an upgrade: 405 with the methods of its path, or 426
// with the routes that there are.
std::optional<HttpResponse> refuse_plain_request(const Routes& routes, const Request& request);

}  // namespace pi0::server
