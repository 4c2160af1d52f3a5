#include "tools/closed_loop/server_probe.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <charconv>
#include <chrono>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

namespace pi0::tools {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

using Response = http::response<http::string_body>;

asio::awaitable<Response> ask(std::uint16_t port, const char* target, std::string api_key) {
  beast::tcp_stream stream(co_await asio::this_coro::executor);
  stream.expires_after(std::chrono::seconds(2));
  co_await stream.async_connect({asio::ip::address_v4::loopback(), port}, asio::use_awaitable);
  http::request<http::empty_body> request(http::verb::get, target, 11);
  request.set(http::field::host, "localhost");
  if (!api_key.empty()) request.set(http::field::authorization, "Api-Key " + api_key);
  co_await http::async_write(stream, request, asio::use_awaitable);
  beast::flat_buffer buffer;
  Response response;
  co_await http::async_read(stream, buffer, response, asio::use_awaitable);
  co_return response;
}

// The body of a 200; none of anything else.
std::optional<std::string> body_of(std::uint16_t port, const char* target, const std::string& api_key = "") {
  asio::io_context io;
  std::optional<std::string> body;
  asio::co_spawn(io, ask(port, target, api_key), [&](const std::exception_ptr& error, Response response) {
    if (!error && response.result() == http::status::ok) body = std::move(response.body());
  });
  io.run();
  return body;
}

// The value of a sample in Prometheus' text format.
std::optional<std::int64_t> sample(std::string_view metrics, const std::string& name) {
  const std::size_t at = metrics.find("\n" + name + " ");
  if (at == std::string_view::npos) return std::nullopt;
  const std::size_t begin = at + name.size() + 2;
  double value = 0;  // counters are floating-point numbers
  const auto [rest, error] = std::from_chars(metrics.data() + begin, metrics.data() + metrics.size(), value);
  return error == std::errc() ? std::optional(static_cast<std::int64_t>(value)) : std::nullopt;
}

}  // namespace

bool is_healthy(std::uint16_t port) { return body_of(port, "/healthz").has_value(); }

RequestCounts operator-(RequestCounts later, const RequestCounts& earlier) {
  later.answered -= earlier.answered;
  later.refused -= earlier.refused;
  later.failed -= earlier.failed;
  later.dropped -= earlier.dropped;
  return later;
}

std::optional<RequestCounts> request_counts(std::uint16_t port, const std::string& api_key) {
  const std::optional<std::string> metrics = body_of(port, "/metrics", api_key);
  if (!metrics) return std::nullopt;
  RequestCounts counts;
  for (const auto& [result, count] : {std::pair("answered", &counts.answered), std::pair("refused", &counts.refused),
                                      std::pair("failed", &counts.failed), std::pair("dropped", &counts.dropped)}) {
    const auto value = sample(*metrics, std::string("pi0_requests_total{result=\"") + result + "\"}");
    if (!value) return std::nullopt;
    *count = *value;
  }
  return counts;
}

nlohmann::ordered_json to_json(const RequestCounts& counts) {
  return {{"answered", counts.answered},
          {"refused", counts.refused},
          {"failed", counts.failed},
          {"dropped", counts.dropped}};
}

}  // namespace pi0::tools
