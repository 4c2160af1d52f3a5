// The layers of a connection from the bottom up: TCP, TLS if the server uses it, and the WebSocket.
#pragma once

#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/buffered_read_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/role.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/websocket/stream.hpp>
#include <chrono>
#include <exception>
#include <optional>
#include <utility>

namespace pi0::server {

// A completion token for co_await that stores the error instead of throwing it.
inline auto into(boost::system::error_code& error) {
  return boost::asio::redirect_error(boost::asio::use_awaitable, error);
}

// TCP with or without TLS. One type for both, so that the layers above are compiled once.
class MaybeTlsStream {
 public:
  using TcpStream = boost::beast::tcp_stream;
  using executor_type = TcpStream::executor_type;

  // `tls` is null for plain TCP and outlives this.
  MaybeTlsStream(boost::asio::ip::tcp::socket socket, boost::asio::ssl::context* tls) : tcp_(std::move(socket)) {
    if (tls != nullptr) tls_.emplace(tcp_, *tls);
  }

  executor_type get_executor() { return tcp_.get_executor(); }
  TcpStream& next_layer() { return tcp_; }  // its timeouts hold for TLS too
  const TcpStream& next_layer() const { return tcp_; }

  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    return tls_ ? tls_->async_read_some(buffers, std::forward<Token>(token))
                : tcp_.async_read_some(buffers, std::forward<Token>(token));
  }

  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return tls_ ? tls_->async_write_some(buffers, std::forward<Token>(token))
                : tcp_.async_write_some(buffers, std::forward<Token>(token));
  }

  // The TLS handshake as server or client; does nothing for plain TCP.
  boost::asio::awaitable<void> shake_hands(boost::asio::ssl::stream_base::handshake_type role,
                                           boost::system::error_code& error) {
    if (!tls_) co_return;
    co_await tls_->async_handshake(role, into(error));
  }

  SSL* tls() { return tls_ ? tls_->native_handle() : nullptr; }

  // Shuts down sending, then reads until the client closes or the timeout. Closing a socket with unread bytes would
  // reset the connection, and the client could lose what was sent last.
  boost::asio::awaitable<void> end(std::chrono::milliseconds timeout) {
    boost::system::error_code error;
    tcp_.expires_after(timeout);
    if (tls_) co_await tls_->async_shutdown(into(error));
    tcp_.socket().shutdown(boost::asio::ip::tcp::socket::shutdown_send, error);
    std::array<char, 4096> unread{};
    for (error = {}; !error;) co_await tcp_.async_read_some(boost::asio::buffer(unread), into(error));
    tcp_.close();
  }

 private:
  TcpStream tcp_;
  std::optional<boost::asio::ssl::stream<TcpStream&>> tls_;
};

// Adds a buffer for what the client sent behind the HTTP header.
class Transport : public boost::beast::buffered_read_stream<MaybeTlsStream, boost::beast::flat_buffer> {
 public:
  Transport(boost::asio::ip::tcp::socket socket, boost::asio::ssl::context* tls, std::chrono::milliseconds end_timeout)
      : buffered_read_stream(std::move(socket), tls), end_timeout_(end_timeout) {}

  // Beast calls this after the closing handshake and after a violation of the protocol.
  template <class Handler>
  friend void async_teardown(boost::beast::role_type, Transport& transport, Handler&& handler) {
    boost::asio::co_spawn(transport.get_executor(), transport.next_layer().end(transport.end_timeout_),
                          [handler = std::forward<Handler>(handler)](const std::exception_ptr&) mutable {
                            handler(boost::system::error_code{});
                          });
  }

 private:
  std::chrono::milliseconds end_timeout_;
};

struct WebSocket : boost::beast::websocket::stream<Transport, /*deflateSupported=*/false> {
  using boost::beast::websocket::stream<Transport, false>::stream;

  MaybeTlsStream& stream() { return next_layer().next_layer(); }
  boost::beast::tcp_stream& tcp() { return stream().next_layer(); }
};

}  // namespace pi0::server
