// Whatever a client sends as its HTTP request: an answer with a status of HTTP, or a WebSocket.
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <cstdint>
#include <cstdlib>

#include "server/event_log.h"
#include "server/handshake.h"
#include "server/routing.h"

using namespace pi0::server;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  namespace http = boost::beast::http;
  static const Routes routes = {
      {"GET", "/healthz", {}, Access::open}, {"GET", "/stats", {}}, {"POST", "/stats/reset", {}}};
  ServerOptions options;
  options.allowed_origins = {"https://site"};

  http::request_parser<http::empty_body> parser;
  parser.header_limit(1 << 20);
  boost::system::error_code error;
  parser.eager(true);
  parser.put(boost::asio::buffer(bytes, size), error);
  if (!parser.is_header_done()) return 0;
  const Request request = parser.release();
  route_of(routes, request);
  for (const auto& answer :
       {refuse_browser(request, options, size % 2 == 0), refuse_key(request, "secret"), refuse_upgrade(request)}) {
    if (answer && (answer->status < 400 || answer->status > 599 || answer->body.empty())) std::abort();
  }
  if (const auto answer = answer_plain_request(routes, request)) {
    const bool is_refusal = answer->status >= 400 && answer->status <= 599;
    if (!is_refusal && answer->status != 200) std::abort();
    if (answer->body.empty() && answer->allow.empty()) std::abort();
  }
  answer_form_of(request);
  if (log_text(std::string(request.target())).size() > 200 * 10 + 3) std::abort();
  return 0;
}
