#include "server/http_front.h"

#include <spdlog/spdlog.h>

#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http.hpp>
#include <cstdint>
#include <exception>
#include <string>
#include <utility>

#include "server/error_text.h"
#include "server/routing.h"

namespace pi0::server {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

namespace {

constexpr std::uint32_t max_header_bytes = 1 << 20;  // as much as openpi's server reads: 128 lines of 8 KiB

http::response<http::string_body> message_of(const Request& request, const HttpResponse& response) {
  http::response<http::string_body> message(static_cast<http::status>(response.status), 11, response.body);
  message.set(http::field::server, "pi0");
  message.set(http::field::content_type, response.content_type);
  if (!response.allow.empty()) message.set(http::field::allow, response.allow);
  if (message.result() == http::status::upgrade_required) message.set(http::field::upgrade, "websocket");
  if (message.result() == http::status::unauthorized) message.set(http::field::www_authenticate, "Api-Key");
  message.keep_alive(false);
  message.prepare_payload();
  if (request.method() == http::verb::head) message.body().clear();  // after its length is in the header
  return message;
}

}  // namespace

HttpFront::~HttpFront() {
  if (stage_ == Stage::client) --service_.clients;
}

asio::awaitable<std::optional<Upgrade>> HttpFront::run() {
  std::optional<Upgrade> asked = co_await read_request();
  if (!asked) co_return asked;
  stage_ = Stage::asking;
  if (const auto response = respond(asked->request)) {
    co_await write(asked->request, *response);
    co_return std::nullopt;
  }
  stage_ = Stage::client;
  ++service_.clients;
  co_return asked;
}

asio::awaitable<std::optional<Upgrade>> HttpFront::read_request() {
  stream_.next_layer().expires_after(service_.options.handshake_timeout);
  boost::system::error_code error;
  co_await stream_.shake_hands(asio::ssl::stream_base::server, error);
  if (error) {
    log_.info("connections without TLS", "no TLS: " + error.message());
    co_return std::nullopt;
  }
  http::request_parser<http::empty_body> parser;
  parser.header_limit(max_header_bytes);
  beast::flat_buffer received;
  co_await http::async_read_header(stream_, received, parser, into(error));
  if (!error) co_return Upgrade{parser.release(), std::move(received)};
  log_.info("connections without an HTTP request", "no HTTP request: " + error.message());
  if (const auto response = refuse_bad_http(error)) co_await write(Request(), *response);
  co_return std::nullopt;
}

// Nothing for an upgrade that is accepted.
std::optional<HttpResponse> HttpFront::respond(const Request& request) {
  if (auto refusal = refuse_browser(request, service_.options, service_.is_on_loopback)) {
    log_.warn("requests from other sites' pages", "refused: " + refusal->body);
    return refusal;
  }
  const Route* const route = route_of(service_.routes, request);
  const bool is_open = route != nullptr && route->access == Access::open;
  if (!service_.options.api_key.empty() && !is_open) {
    if (auto refusal = refuse_key(request, service_.options.api_key)) {
      log_.warn("requests without the API key", "refused: missing or wrong API key");
      return refusal;
    }
  }
  if (route != nullptr) return response_of(*route);
  return respond_without_route(request);
}

HttpResponse HttpFront::response_of(const Route& route) {
  try {
    return route.respond();
  } catch (const std::exception& error) {
    spdlog::error("{} {}: {}", route.method, route.path, error.what());
    return {500, error_text(error) + "\n"};
  }
}

// Nothing for an upgrade that is accepted.
std::optional<HttpResponse> HttpFront::respond_without_route(const Request& request) {
  if (auto response = answer_plain_request(service_.routes, request)) return response;
  if (auto refusal = refuse_upgrade(request)) return refusal;
  if (service_.is_draining) {
    return HttpResponse{503, "Failed to open a WebSocket connection: the server is shutting down.\n"};
  }
  if (service_.clients < service_.max_clients) return std::nullopt;
  log_.warn("connections refused", "refused: too many clients are connected");
  return HttpResponse{503, "Failed to open a WebSocket connection: too many are open.\n"};
}

asio::awaitable<void> HttpFront::write(const Request& request, const HttpResponse& response) {
  spdlog::debug("{}: {} {} answered with {}", log_.peer(), log_text(std::string(request.method_string())),
                log_text(std::string(request.target())), response.status);
  const auto message = message_of(request, response);
  co_await http::async_write(stream_, message, asio::use_awaitable);
  stage_ = Stage::answered;
  co_await stream_.end(service_.options.handshake_timeout);
}

}  // namespace pi0::server
