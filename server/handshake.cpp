#include "server/handshake.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/field.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/beast/http/status.hpp>
#include <cctype>
#include <string_view>

#include "server/addresses.h"

namespace pi0::server {
namespace {

namespace http = boost::beast::http;

HttpResponse refusal(http::status status, const std::string& reason) {
  return {static_cast<unsigned>(status), "Failed to open a WebSocket connection: " + reason + ".\n",
          HttpResponse().content_type, status == http::status::method_not_allowed ? "GET" : ""};
}

bool is_websocket_key(std::string_view key) {  // 16 bytes in base64
  return key.size() == 24 && key.ends_with("==") && std::all_of(key.begin(), key.end() - 2, [](unsigned char c) {
           return std::isalnum(c) || c == '+' || c == '/';
         });
}

// The host of host:port or [address]:port.
std::string_view without_port(std::string_view host) {
  const std::size_t colon = host.rfind(':');
  return colon == host.npos || host.ends_with(']') ? host : host.substr(0, colon);
}

// Nothing for a name, since DNS may resolve it to any address. "127.1" is an address too.
std::optional<boost::asio::ip::address> address_of(std::string host) {
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  in_addr old_form{};
  if (::inet_aton(host.c_str(), &old_form) != 0) return boost::asio::ip::address_v4(ntohl(old_form.s_addr));
  boost::system::error_code is_name;
  const auto address = boost::asio::ip::make_address(host, is_name);
  return is_name ? std::nullopt : std::optional(unmapped(address));
}

// A host's name in lower case and without the dot that may end it.
std::string plain_name(std::string_view host) {
  std::string name(host);
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (name.ends_with('.')) name.pop_back();
  return name;
}

bool is_loopback(const std::string& name) {
  const auto address = address_of(name);
  return name == "localhost" || (address && address->is_loopback());
}

}  // namespace

std::optional<HttpResponse> refuse_bad_http(const boost::system::error_code& error) {
  const boost::system::error_code ended = http::error::end_of_stream, cut_short = http::error::partial_message;
  if (error.category() != ended.category() || error == ended || error == cut_short) return std::nullopt;
  const bool is_too_long = error == http::error::header_limit;
  const auto status = is_too_long ? http::status::request_header_fields_too_large : http::status::bad_request;
  return HttpResponse{static_cast<unsigned>(status), is_too_long ? "The request's header is longer than 1 MiB.\n"
                                                                 : "Not an HTTP request: " + error.message() + ".\n"};
}

std::optional<HttpResponse> refuse_upgrade(const Request& request) {
  const auto header = [&](http::field field) { return request[field]; };
  const auto name = [&](http::field field) {
    return (header(field).empty() ? "missing " : "invalid ") + std::string(http::to_string(field)) + " header";
  };
  if (request.method() != http::verb::get) {
    return refusal(http::status::method_not_allowed,
                   "found method " + std::string(request.method_string()) + ", expected GET");
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

std::optional<HttpResponse> refuse_browser(const Request& request, const ServerOptions& options, bool is_on_loopback) {
  const auto has = [](const std::vector<std::string>& names, std::string_view name) {
    return std::ranges::any_of(names, [&](const std::string& known) { return plain_name(known) == plain_name(name); });
  };
  const auto field = [&](http::field name) {
    const auto value = request[name];
    return std::string_view(value.data(), value.size());
  };
  const std::string_view origin = field(http::field::origin), host = field(http::field::host);
  const auto forbidden = [](const std::string& reason) {
    return HttpResponse{static_cast<unsigned>(http::status::forbidden), reason + "\n"};
  };
  const std::string name = plain_name(without_port(host));
  const bool is_own = (origin == "http://" + std::string(host) || origin == "https://" + std::string(host)) &&
                      (name == "localhost" || address_of(name));
  if (!origin.empty() && !is_own && !has(options.allowed_origins, origin) && !has(options.allowed_origins, "*")) {
    return forbidden("Origin '" + std::string(origin) +
                     "' may not connect; the server's option --allow-origin can allow it.");
  }
  const bool is_ours =
      name.empty() || is_loopback(name) || name == plain_name(options.host) || has(options.allowed_hosts, name);
  if (is_on_loopback && !is_ours) {
    return forbidden("Host '" + name + "' is not a name of this server, which listens on " + options.host +
                     "; its option --allow-host adds names.");
  }
  return std::nullopt;
}

std::optional<HttpResponse> refuse_key(const Request& request, const std::string& api_key) {
  const std::string wanted = "Api-Key " + api_key;
  const auto given = request[http::field::authorization];
  if (given.size() == wanted.size() && CRYPTO_memcmp(given.data(), wanted.data(), wanted.size()) == 0) {
    return std::nullopt;
  }
  return HttpResponse{
      static_cast<unsigned>(http::status::unauthorized),
      given.empty() ? "No API key; expected the header 'Authorization: Api-Key KEY'.\n" : "Wrong API key.\n"};
}

}  // namespace pi0::server
