#include "tools/closed_loop/health_check.h"

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
#include <chrono>
#include <exception>

namespace pi0::tools {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

asio::awaitable<bool> ask(std::uint16_t port) {
  beast::tcp_stream stream(co_await asio::this_coro::executor);
  stream.expires_after(std::chrono::seconds(2));
  co_await stream.async_connect({asio::ip::address_v4::loopback(), port}, asio::use_awaitable);
  http::request<http::empty_body> request(http::verb::get, "/healthz", 11);
  request.set(http::field::host, "localhost");
  co_await http::async_write(stream, request, asio::use_awaitable);
  beast::flat_buffer buffer;
  http::response<http::string_body> response;
  co_await http::async_read(stream, buffer, response, asio::use_awaitable);
  co_return response.result() == http::status::ok;
}

}  // namespace

bool is_healthy(std::uint16_t port) {
  asio::io_context io;
  bool healthy = false;
  asio::co_spawn(io, ask(port), [&](const std::exception_ptr& error, bool answer) { healthy = !error && answer; });
  io.run();
  return healthy;
}

}  // namespace pi0::tools
