// What to tell a person when a policy server cannot be reached.
#pragma once

#include <openssl/ssl.h>

#include <boost/beast/websocket/rfc6455.hpp>
#include <boost/system/error_code.hpp>
#include <string>

#include "tools/client/policy_client.h"

namespace pi0::tools {

// Of a TLS handshake that failed.
std::string tls_failure(const boost::system::error_code& error, const SSL* tls, const std::string& host);

// Of a WebSocket handshake that failed; `response` is what came of it.
std::string handshake_failure(const boost::system::error_code& error,
                              const boost::beast::websocket::response_type& response, const ServerAccess& access);

}  // namespace pi0::tools
