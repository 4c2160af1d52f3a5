// Checks of an HTTP request before it may become a WebSocket. Each returns the refusal, or nothing.
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

// For an error of reading the header: 400 when it is not HTTP, 431 when it is too long. Nothing when the connection
// failed.
std::optional<HttpResponse> refuse_bad_http(const boost::system::error_code& error);

// For requests that are not a valid upgrade, with the status that openpi's server gives: 400, 405 or 426.
std::optional<HttpResponse> refuse_upgrade(const Request& request);

// 403 for requests that a browser sends for another site's page, since a web page must not command a robot: their
// Origin is neither this server nor allowed, or, on a server bound to a loopback address, their Host is not one of its
// names (DNS rebinding). Clients that are no browsers send no Origin.
std::optional<HttpResponse> refuse_browser(const Request& request, const ServerOptions& options, bool is_on_loopback);

// 401 unless the request has the header that openpi's clients send, `Authorization: Api-Key KEY`. The comparison takes
// constant time.
std::optional<HttpResponse> refuse_key(const Request& request, const std::string& api_key);

}  // namespace pi0::server
