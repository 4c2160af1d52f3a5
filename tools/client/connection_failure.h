// What to tell a person when a policy server cannot be reached.
#pragma once

#include <openssl/ssl.h>

#include <boost/beast/websocket/rfc6455.hpp>
#include <boost/system/error_code.hpp>
#include <string>

#include "tools/client/policy_client.h"

namespace pi0::tools {

// Says why a TLS handshake failed.
std::string tls_failure(const boost::system::error_code& error, const SSL* tls, const std::string& host);

// Says why a WebSocket handshake failed; `response` is what the server answered.
std::string handshake_failure(const boost::system::error_code& error,
                              const boost::beast::websocket::response_type& response, const ServerAccess& access);

}  // namespace pi0::tools
