#include "server/handshake.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <boost/beast/http/field.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/beast/http/status.hpp>
#include <cctype>
#include <string_view>

namespace pi0::server {
namespace {

namespace http = boost::beast::http;

HttpResponse refusal(http::status status, const std::string& reason) {
  return {static_cast<unsigned>(status), "Failed to open a WebSocket connection: " + reason + ".\n",
          HttpResponse().content_type, status == http::status::method_not_allowed ? "GET" : ""};
}

bool is_websocket_key(std::string_view key) {  // 16 bytes in base64
  return key.size() == 24 && key.ends_with("==") &&
         std::all_of(key.begin(), key.end() - 2,
                     [](unsigned char c) { return std::isalnum(c) || c == '+' || c == '/'; });
}

}  // namespace

std::optional<HttpResponse> refuse_upgrade(const Request& request) {
  const auto header = [&](http::field field) { return request[field]; };
  const auto name = [&](http::field field) {
    return (header(field).empty() ? "missing " : "invalid ") + std::string(http::to_string(field)) +
           " header";
  };
  if (request.method() != http::verb::get) {
    return refusal(http::status::method_not_allowed, "found method " + std::string(request.method_string()) + ", expected GET");
  }
  if (!http::token_list{header(http::field::connection)}.exists("upgrade")) {
    return refusal(http::status::upgrade_required, name(http::field::connection));
  }
  if (!http::token_list{header(http::field::upgrade)}.exists("websocket")) {
    return refusal(http::status::upgrade_required, name(http::field::upgrade));
  }
  const auto key = header(http::field::sec_websocket_key);
  if (!is_websocket_key({key.data(), key.size()})) {
    return refusal(http::status::bad_request, name(http::field::sec_websocket_key));
  }
  if (header(http::field::sec_websocket_version) != "13") {
    return refusal(http::status::bad_request, name(http::field::sec_websocket_version));
  }
  return std::nullopt;
}

std::optional<HttpResponse> refuse_key(const Request& request, const std::string& api_key) {
  const std::string wanted = "Api-Key " + api_key;
  const auto given = request[http::field::authorization];
  if (given.size() == wanted.size() && CRYPTO_memcmp(given.data(), wanted.data(), wanted.size()) == 0) {
    return std::nullopt;
  }
  return HttpResponse{static_cast<unsigned>(http::status::unauthorized),
                      given.empty() ? "No API key; expected the header 'Authorization: Api-Key KEY'.\n"
                                    : "Not the API key of this server.\n"};
}

}  // namespace pi0::server
