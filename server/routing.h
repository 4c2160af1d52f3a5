// Which route answers a plain HTTP request, the responses to requests that have none, and what a WebSocket's path
// means.
#pragma once

#include <optional>

#include "server/handshake.h"
#include "server/routes.h"

namespace pi0::server {

// The route of the request's method and path; null when there is none. Ignores a query, and scheme and host of an
// absolute address (RFC 9112 3.2.2). A WebSocket upgrade with either has no route, whatever its path, as with openpi's
// server.
const Route* route_of(const Routes& routes, const Request& request);

// The response to a request without a route: to OPTIONS the methods that its path has, to GET / what this server is,
// otherwise 405 with the methods, or 426 with the list of routes. Nothing for a request that asks for an upgrade.
std::optional<HttpResponse> answer_plain_request(const Routes& routes, const Request& request);

// What a client gets for a request. Every path is served; vLLM-Omni's, /v1/realtime/robot/openpi, has its own form.
enum class AnswerForm {
  map,     // openpi's: actions and timings
  actions  // the action array alone
};
AnswerForm answer_form_of(const Request& upgrade);

}  // namespace pi0::server
