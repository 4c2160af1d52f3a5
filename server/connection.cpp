#include "server/connection.h"

#include <spdlog/spdlog.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <optional>
#include <string>
#include <utility>

#include "server/addresses.h"
#include "server/http_front.h"
#include "server/routing.h"
#include "server/session.h"
#include "server/transport.h"

namespace pi0::server {

namespace asio = boost::asio;
namespace http = boost::beast::http;
namespace websocket = boost::beast::websocket;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

tcp::endpoint peer_of(const tcp::socket& socket) {
  error_code unknown;  // the client is gone already
  const tcp::endpoint endpoint = socket.remote_endpoint(unknown);
  return {unmapped(endpoint.address()), endpoint.port()};
}

std::string name_of(const tcp::endpoint& peer) {
  return peer.address().to_string() + ":" + std::to_string(peer.port());
}

}  // namespace

Connection::Connection(tcp::socket socket, Service& service)
    : service_(service),
      address_(shared_part(peer_of(socket).address())),
      log_(service.log, name_of(peer_of(socket))),
      ws_(std::make_shared<WebSocket>(std::move(socket), service.tls, service.options.handshake_timeout)),
      front_(std::make_unique<HttpFront>(ws_->stream(), service, log_)) {}

Connection::~Connection() = default;

void Connection::start() {
  asio::co_spawn(ws_->get_executor(), [self = shared_from_this()] { return self->run(); }, asio::detached);
}

void Connection::close_after_answer() {
  if (session_) session_->close_after_answer();
}
void Connection::go_away() { session_ ? session_->go_away() : cut_off(); }
void Connection::cut_off() { ws_->tcp().close(); }

bool Connection::is_client() const { return front_->stage() == HttpFront::Stage::client; }
bool Connection::is_answered() const { return front_->stage() == HttpFront::Stage::answered; }
bool Connection::is_open() const { return ws_->tcp().socket().is_open(); }

bool Connection::is_silent() const {
  error_code gone;
  return front_->stage() == HttpFront::Stage::connecting && ws_->tcp().socket().available(gone) == 0;
}

asio::awaitable<void> Connection::run() {
  try {
    ws_->tcp().socket().set_option(tcp::no_delay(true));
    if (const std::optional<Upgrade> upgrade = co_await front_->run()) {
      co_await accept(*upgrade);
      session_ = std::make_shared<Session>(ws_, service_, log_, answer_form_of(upgrade->request));
      co_await session_->run();
    }
  } catch (const std::exception& error) {
    spdlog::debug("{}: {}", log_.peer(), error.what());
  }
  session_.reset();
}

// Sends the WebSocket's handshake response.
asio::awaitable<void> Connection::accept(const Upgrade& upgrade) {
  auto& early = ws_->next_layer().buffer();  // what came behind the request is the first of the WebSocket's bytes
  early.commit(asio::buffer_copy(early.prepare(upgrade.received.size()), upgrade.received.data()));
  ws_->set_option(websocket::stream_base::decorator(
      [](websocket::response_type& response) { response.set(http::field::server, "pi0"); }));
  co_await ws_->async_accept(upgrade.request, asio::use_awaitable);
  ws_->tcp().expires_never();
}

}  // namespace pi0::server
