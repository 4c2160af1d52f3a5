// What an HTTP request must be to become a WebSocket of ours.
#pragma once

#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/system/error_code.hpp>
#include <optional>
#include <string>

#include "server/routes.h"
#include "server/server.h"

namespace pi0::server {

using Request = boost::beast::http::request<boost::beast::http::empty_body>;

// 400 or 431 for a request that is no HTTP or whose header is too long; nothing when the connection failed.
std::optional<HttpResponse> refuse_bad_http(const boost::system::error_code& error);

// Why the request cannot become a WebSocket, with the status openpi's server gives; nothing if it can.
std::optional<HttpResponse> refuse_upgrade(const Request& request);

// 403 for what a browser sends for a page of another site, which may not command a robot: an Origin that is neither
// this server nor allowed, or, on a server bound to the loopback, a Host that is not one of its names (a page whose
// name was made to lead here). Clients that are no browsers send no Origin.
std::optional<HttpResponse> refuse_browser(const Request& request, const ServerOptions& options, bool is_on_loopback);

// 401 unless the request has the header that openpi's clients send, `Authorization: Api-Key KEY`. How
// long the comparison takes does not depend on where the keys differ.
std::optional<HttpResponse> refuse_key(const Request& request, const std::string& api_key);

}  // namespace pi0::server
