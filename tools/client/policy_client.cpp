#include "tools/client/policy_client.h"

#include <fmt/format.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/field.hpp>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "protocol/msgpack_numpy.h"
#include "server/transport.h"
#include "tools/client/connection_failure.h"

namespace pi0::tools {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using boost::system::error_code;
using server::into;

constexpr std::chrono::seconds patience{10};  // until the WebSocket is open; as openpi's clients wait

asio::ssl::context tls_context(const std::filesystem::path& ca) {
  asio::ssl::context context(asio::ssl::context::tls_client);
  context.set_verify_mode(asio::ssl::verify_peer);
  error_code error;
  ca.empty() ? context.set_default_verify_paths(error) : context.load_verify_file(ca.string(), error);
  if (error)
    throw std::runtime_error(ca.string() + ": cannot be used as a PEM file of certificates: " + error.message());
  return context;
}

// The certificate must be for this host, and a server of several names must know which was meant.
void expect_host(SSL* tls, const std::string& host) {
  error_code is_name;
  asio::ip::make_address(host, is_name);
  if (!is_name) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), host.c_str());
  } else {
    SSL_set_hostflags(tls, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);  // as Python's clients: the alternative names only
    SSL_set1_host(tls, host.c_str());
    SSL_set_tlsext_host_name(tls, host.c_str());
  }
}

}  // namespace

struct PolicyClient::Connection {
  asio::io_context io{1};
  std::optional<asio::ssl::context> tls;
  std::optional<server::WebSocket> ws;
  std::string address;
  protocol::Dict metadata;

  // Runs the work to its end on the calling thread.
  template <class Result>
  Result run(asio::awaitable<Result> work) {
    auto result = asio::co_spawn(io, std::move(work), asio::use_future);
    io.restart();
    io.run();
    return result.get();
  }

  void expect(const error_code& error, const std::string& failure) const {
    if (error) throw std::runtime_error(fmt::format("cannot connect to {}: {}", address, failure));
  }

  asio::awaitable<void> open(const ServerAccess& access) {
    const ServerUrl& url = access.url;
    error_code error;
    asio::ip::tcp::resolver resolver(io);
    const auto found = co_await resolver.async_resolve(url.host, url.port, into(error));
    expect(error, error.message());
    ws->tcp().expires_after(patience);
    co_await ws->tcp().async_connect(found, into(error));
    expect(error, error == beast::error::timeout ? "nothing answers there" : error.message());
    if (tls) expect_host(ws->stream().tls(), url.host);
    co_await ws->stream().shake_hands(asio::ssl::stream_base::client, error);
    if (error) expect(error, tls_failure(error, ws->stream().tls(), url.host));
    ws->set_option(websocket::stream_base::decorator([&](websocket::request_type& request) {
      if (!access.api_key.empty()) request.set(beast::http::field::authorization, "Api-Key " + access.api_key);
    }));
    websocket::response_type response;
    co_await ws->async_handshake(response, url.authority(), url.path, into(error));
    if (error) expect(error, handshake_failure(error, response, access));
    ws->tcp().expires_never();
    ws->read_message_max(0);  // chunks and recordings may be of any size
    // A server of Python's stops reading after 16 frames that it does not want, and would miss the close behind them.
    ws->auto_fragment(false);
    metadata = co_await read();
  }

  asio::awaitable<protocol::Dict> read() {
    beast::flat_buffer buffer;
    error_code error;
    co_await ws->async_read(buffer, into(error));
    if (error) lost(error);
    if (ws->got_text()) throw std::runtime_error("the server refused: " + beast::buffers_to_string(buffer.data()));
    const auto* data = static_cast<const std::uint8_t*>(buffer.data().data());
    co_return protocol::decode({data, buffer.size()});
  }

  asio::awaitable<protocol::Dict> infer(std::vector<std::uint8_t> request) {
    error_code error;
    ws->binary(true);
    co_await ws->async_write(asio::buffer(request), into(error));
    // Even if it could not be written, what the server said last can be read.
    co_return co_await read();
  }

  [[noreturn]] void lost(const error_code& error) const {
    if (error != websocket::error::closed) {
      throw std::runtime_error(fmt::format("the connection to {} is lost: {}", address, error.message()));
    }
    const websocket::close_reason& why = ws->reason();
    const std::string text = fmt::format("{} closed the connection: {} {}", address, why.code,
                                         std::string_view(why.reason.data(), why.reason.size()));
    if (why.code == websocket::close_code::going_away) throw ServerShutDown(text);
    throw std::runtime_error(text);
  }
};

PolicyClient::PolicyClient(const ServerAccess& access) : connection_(std::make_unique<Connection>()) {
  connection_->address = access.url.text();
  if (access.url.has_tls) connection_->tls.emplace(tls_context(access.tls_ca));
  connection_->ws.emplace(asio::ip::tcp::socket(connection_->io), connection_->tls ? &*connection_->tls : nullptr,
                          patience);
  connection_->run(connection_->open(access));
}

PolicyClient::~PolicyClient() {
  connection_->ws->async_close(websocket::close_code::normal, [](const error_code&) {});
  connection_->io.restart();
  connection_->io.run_for(patience);
}

const protocol::Dict& PolicyClient::metadata() const { return connection_->metadata; }

protocol::Dict PolicyClient::infer(const protocol::Dict& request) {
  return connection_->run(connection_->infer(protocol::encode(request)));
}

}  // namespace pi0::tools
