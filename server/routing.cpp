#include "server/routing.h"

#include <algorithm>
#include <boost/beast/http/field.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/http/verb.hpp>
#include <string>
#include <string_view>

namespace pi0::server {
namespace {

namespace http = boost::beast::http;

std::string_view path_of(const Request& request) {
  std::string_view target(request.target().data(), request.target().size());
  if (const std::size_t scheme = target.find("://"); scheme != target.npos && !target.starts_with('/')) {
    const std::size_t path = target.find_first_of("/?", scheme + 3);
    target = path == target.npos ? "/" : target.substr(path);
  }
  return target.substr(0, target.find('?'));
}

bool upgrades_to_websocket(const Request& request) {
  return http::token_list{request[http::field::upgrade]}.exists("websocket");
}

bool asks_for_upgrade(const Request& request) {
  return !request[http::field::upgrade].empty() || !request[http::field::sec_websocket_key].empty() ||
         http::token_list{request[http::field::connection]}.exists("upgrade");
}

bool answers(const Route& route, const Request& request) {
  const auto method = request.method_string();
  return route.method == method || (route.method == "GET" && request.method() == http::verb::head);
}

// GET, HEAD and OPTIONS for a path that has no route: a WebSocket begins with GET.
std::string methods_of(const Routes& routes, std::string_view path) {
  std::string methods;
  for (const Route& route : routes) {
    if (route.path == path) methods += route.method + (route.method == "GET" ? ", HEAD, " : ", ");
  }
  return (methods.empty() ? "GET, HEAD, " : methods) + "OPTIONS";
}

std::string list_of(const Routes& routes) {
  std::string list;
  for (const Route& route : routes) list += (list.empty() ? "" : ", ") + route.method + " " + route.path;
  return list;
}

bool has_path(const Routes& routes, std::string_view path) {
  return std::ranges::find(routes, path, &Route::path) != routes.end();
}

HttpResponse wrong_method(const Request& request, std::string_view path, const std::string& allowed) {
  return {static_cast<unsigned>(http::status::method_not_allowed),
          std::string(path) + ": found method " + std::string(request.method_string()) + ", expected " + allowed + "\n",
          HttpResponse().content_type, allowed};
}

}  // namespace

const Route* route_of(const Routes& routes, const Request& request) {
  const std::string_view path = path_of(request);
  if (upgrades_to_websocket(request) && path != std::string_view(request.target().data(), request.target().size())) {
    return nullptr;
  }
  const auto route = std::ranges::find_if(
      routes, [&](const Route& candidate) { return candidate.path == path && answers(candidate, request); });
  return route == routes.end() ? nullptr : &*route;
}

std::optional<HttpResponse> answer_plain_request(const Routes& routes, const Request& request) {
  if (asks_for_upgrade(request)) return std::nullopt;
  const std::string_view path = path_of(request);
  const std::string methods = methods_of(routes, path);
  if (request.method() == http::verb::options) {
    return HttpResponse{static_cast<unsigned>(http::status::ok), "", HttpResponse().content_type, methods};
  }
  const bool is_read = request.method() == http::verb::get || request.method() == http::verb::head;
  if (!is_read || has_path(routes, path)) return wrong_method(request, path, methods);
  if (path == "/") {
    return HttpResponse{static_cast<unsigned>(http::status::ok),
                        "pi0-server: a robot policy for openpi's clients, which connect with a WebSocket on any path.\n"
                        "Plain HTTP: " +
                            list_of(routes) + ".\n"};
  }
  return HttpResponse{static_cast<unsigned>(http::status::upgrade_required),
                      std::string(path) + ": expected a WebSocket upgrade, as openpi's clients send, or one of " +
                          list_of(routes) + ".\n"};
}

AnswerForm answer_form_of(const Request& upgrade) {
  return path_of(upgrade) == "/v1/realtime/robot/openpi" ? AnswerForm::actions : AnswerForm::map;
}

}  // namespace pi0::server
