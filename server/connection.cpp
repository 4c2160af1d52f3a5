#include "server/connection.h"

#include <spdlog/spdlog.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/buffered_read_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>
#include <chrono>
#include <deque>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/openpi_messages.h"
#include "server/addresses.h"
#include "server/handshake.h"
#include "server/message_bytes.h"
#include "server/routing.h"
#include "server/transport.h"

namespace pi0::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
using asio::use_awaitable;
using boost::system::error_code;
using boost::system::system_error;
using websocket::close_code;
using Clock = std::chrono::steady_clock;

constexpr std::size_t chunk_bytes = 64 << 10;  // read from a socket at once

constexpr std::size_t least_bytes_per_second = 4 << 10;  // of a message that is on its way

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// What a client reads about a failure: never empty, valid UTF-8, one line.
std::string error_text(const std::exception& error) {
  std::string text = error.what();
  if (text.empty()) text = "the request failed and does not say why";
  const bool is_utf8 = protocol::is_utf8(text);
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) c = ' ';
    if (byte >= 0x80 && !is_utf8) c = '?';
  }
  return text;
}

struct Message {
  explicit Message(Backlog::Account& account) : share(account) {}

  MessageBytes bytes;
  Backlog::Share share;
  bool is_text = false;
  Clock::time_point arrived;
};

class OpenpiConnection : public Connection, public std::enable_shared_from_this<OpenpiConnection> {
 public:
  OpenpiConnection(asio::ip::tcp::socket socket, Service& service)
      : service_(service),
        ws_(std::move(socket), service.tls, service.options.handshake_timeout),
        changed_(ws_.get_executor(), Clock::time_point::max()),
        watchdog_(ws_.get_executor()),
        idle_(ws_.get_executor()),
        writing_(ws_.get_executor()),
        receiving_(ws_.get_executor()),
        account_(service.backlog, [this] { return give_way(); }) {
    error_code unknown;
    const auto endpoint = this->socket().socket().remote_endpoint(unknown);
    const auto address = unmapped(endpoint.address());
    address_ = shared_part(address);
    peer_ = address.to_string() + ":" + std::to_string(endpoint.port());
  }

  ~OpenpiConnection() override {
    if (is_client_) --service_.clients;
  }

  void start() {
    asio::co_spawn(ws_.get_executor(), [self = shared_from_this()] { return self->run(); }, asio::detached);
  }

  void go_away() override {
    going_away_ = true;
    if (!is_websocket_) {
      socket().close();
      return;
    }
    withdraw();
    watch();
    changed_.cancel();
  }

  void cut_off() override { socket().close(); }
  bool is_client() const override { return is_client_; }
  bool is_silent() const override {
    error_code gone;
    return !is_client_ && !is_asking_ && tcp().available(gone) == 0;
  }
  bool has_answer() const override { return has_answer_; }
  bool is_open() const override { return tcp().is_open(); }
  const asio::ip::address& address() const override { return address_; }

 private:
  MaybeTlsStream& stream() { return ws_.next_layer().next_layer(); }
  beast::tcp_stream& socket() { return stream().next_layer(); }
  const asio::ip::tcp::socket& tcp() const { return ws_.next_layer().next_layer().next_layer().socket(); }

  // Suspends until the condition holds; whoever changes a member it reads calls changed_.cancel().
  template <class Condition>
  asio::awaitable<void> until(Condition condition) {
    error_code cancelled;
    while (!condition()) {
      co_await changed_.async_wait(asio::redirect_error(use_awaitable, cancelled));
    }
  }

  asio::awaitable<void> run() {
    try {
      socket().socket().set_option(asio::ip::tcp::no_delay(true));
      if (co_await shake_hands()) co_await serve();
    } catch (const std::exception& error) {
      spdlog::debug("{}: {}", peer_, error.what());
    }
  }

  // ---- HTTP

  // Reads one HTTP request and answers it. True when the connection is a WebSocket now.
  asio::awaitable<bool> shake_hands() {
    socket().expires_after(service_.options.handshake_timeout);
    error_code error;
    co_await stream().shake_hands(error);
    if (error) {
      say(spdlog::level::info, "connections without TLS", "no TLS: " + error.message());
      co_return false;
    }
    http::request_parser<http::empty_body> parser;
    parser.header_limit(1 << 20);  // as much as openpi's server reads: 128 lines of 8 KiB
    beast::flat_buffer received;
    co_await http::async_read_header(stream(), received, parser, asio::redirect_error(use_awaitable, error));
    if (error) {
      say(spdlog::level::info, "connections without an HTTP request", "no HTTP request: " + error.message());
      if (const auto response = refuse_bad_http(error)) co_await write(Request(), *response);
      co_return false;
    }
    is_asking_ = true;
    const Request request = parser.release();
    if (const auto response = respond(request)) {
      co_await write(request, *response);
      co_return false;
    }
    auto& early = ws_.next_layer().buffer();
    early.commit(asio::buffer_copy(early.prepare(received.size()), received.data()));
    ws_.set_option(websocket::stream_base::decorator(
        [](websocket::response_type& response) { response.set(http::field::server, "pi0"); }));
    co_await ws_.async_accept(request, use_awaitable);
    socket().expires_never();
    co_return true;
  }

  // The answer of a route, or the refusal of the upgrade; nothing for a good upgrade request.
  std::optional<HttpResponse> respond(const Request& request) {
    if (auto refusal = refuse_browser(request, service_.options, service_.is_on_loopback)) {
      say(spdlog::level::warn, "requests of other sites' pages", "refused: " + refusal->body);
      return refusal;
    }
    const Route* const route = route_of(service_.routes, request);
    const bool is_open = route != nullptr && route->access == Access::open;
    if (!service_.options.api_key.empty() && !is_open) {
      if (auto refusal = refuse_key(request, service_.options.api_key)) {
        say(spdlog::level::warn, "requests without the API key", "refused: not the API key");
        return refusal;
      }
    }
    if (route != nullptr) {
      try {
        return route->respond();
      } catch (const std::exception& error) {
        spdlog::error("{} {}: {}", route->method, route->path, error.what());
        return HttpResponse{500, error_text(error) + "\n"};
      }
    }
    if (auto refusal = refuse_plain_request(service_.routes, request)) return refusal;
    if (auto refusal = refuse_upgrade(request)) return refusal;
    if (service_.clients >= service_.most_clients) {
      say(spdlog::level::warn, "connections refused", "refused: all places for clients are taken");
      return HttpResponse{503, "Failed to open a WebSocket connection: too many are open.\n"};
    }
    is_client_ = true;
    ++service_.clients;
    return std::nullopt;
  }

  asio::awaitable<void> write(const Request& request, const HttpResponse& response) {
    spdlog::debug("{}: {} {} answered with {}", peer_, log_text(std::string(request.method_string())),
                  log_text(std::string(request.target())), response.status);
    http::response<http::string_body> message(static_cast<http::status>(response.status), 11, response.body);
    message.set(http::field::server, "pi0");
    message.set(http::field::content_type, response.content_type);
    if (!response.allow.empty()) message.set(http::field::allow, response.allow);
    if (message.result() == http::status::upgrade_required) {
      message.set(http::field::upgrade, "websocket");
    }
    if (message.result() == http::status::unauthorized) {
      message.set(http::field::www_authenticate, "Api-Key");
    }
    message.keep_alive(false);
    message.prepare_payload();
    if (request.method() == http::verb::head) message.body().clear();
    co_await http::async_write(stream(), message, use_awaitable);
    has_answer_ = true;
    co_await stream().end(service_.options.handshake_timeout);
  }

  // ---- WebSocket

  asio::awaitable<void> serve() {
    service_.log.add(spdlog::level::info, "connections opened", "connection from " + peer_ + " opened");
    service_.metrics.connection_opened();
    ws_.read_message_max(service_.options.max_message_bytes);
    ws_.auto_fragment(false);
    ws_.control_callback([this](websocket::frame_type, beast::string_view) { heard_ = true; });
    watch();
    is_websocket_ = reading_ = true;
    asio::co_spawn(ws_.get_executor(), [self = shared_from_this()] { return self->read_requests(); }, asio::detached);
    try {
      co_await send(service_.metadata);
      co_await answer_requests();
    } catch (const std::exception& error) {
      spdlog::debug("{}: {}", peer_, error.what());
      close(close_code::internal_error, {});
    }
    co_await until([this] { return !reading_ && !closing_; });
    is_websocket_ = false;  // what still comes, as the server's end, finds only a socket
    watchdog_.cancel();
    idle_.cancel();
    writing_.cancel();
    receiving_.cancel();
    service_.metrics.connection_closed();
    service_.metrics.dropped(dropped_ + requests_.size() + (is_in_hand_ ? 1 : 0));
    service_.log.add(spdlog::level::info, "connections closed", "connection from " + peer_ + " closed");
  }

  // Reads until the connection ends, also while an inference runs: this is what answers pings and
  // notices that the client is gone.
  asio::awaitable<void> read_requests() {
    try {
      // A buffer that grows in Beast would throw in its own code when memory ends, where nobody catches.
      std::vector<std::uint8_t> chunk(chunk_bytes);
      while (!close_sent_) {
        do {
          const std::size_t size = co_await ws_.async_read_some(asio::buffer(chunk), use_awaitable);
          heard_ = true;
          if (close_sent_) continue;  // what still comes is not kept
          if (!unfinished_) {
            unfinished_.emplace(account_);
            limit_slowness(0);
          }
          unfinished_->bytes.append({chunk.data(), size});
          unfinished_->share.add(size);
          service_.backlog.make_room();  // which may be by giving way itself
        } while (!ws_.is_message_done());
        receiving_.cancel();
        if (!unfinished_) {
          if (close_sent_) continue;
          unfinished_.emplace(account_);  // an empty message
        }
        Message message = *std::exchange(unfinished_, std::nullopt);
        message.share.finish();
        message.is_text = ws_.got_text();
        message.arrived = Clock::now();
        bytes_ahead_ += message.bytes.size();
        requests_.push_back(std::move(message));
        changed_.cancel();
        co_await until([this] { return close_sent_ || !is_too_far_ahead(); });
      }
    } catch (const system_error& error) {
      const error_code closed = websocket::error::closed;
      if (error.code() != closed && error.code().category() == closed.category()) {
        say(spdlog::level::warn, "breaches of the WebSocket protocol", error.code().message());
      }
    } catch (const std::exception& error) {
      say(spdlog::level::err, "messages for which there was no memory",
          std::string("no memory for its message: ") + error.what());
      service_.worker.count_fault();
      service_.inference_ended();
      close(close_code::internal_error, "no memory for the message");
    }
    receiving_.cancel();
    unfinished_.reset();
    reading_ = false;
    withdraw();
    changed_.cancel();
  }

  // A message must go on arriving, at a rate that no network is below for long.
  void limit_slowness(std::size_t bytes_before) {
    receiving_.expires_after(service_.options.message_timeout);
    receiving_.async_wait([self = shared_from_this(), bytes_before](error_code cancelled) {
      if (cancelled || !self->unfinished_) return;
      const std::size_t bytes = self->unfinished_->bytes.size();
      const auto least =
          static_cast<std::size_t>(std::chrono::duration<double>(self->service_.options.message_timeout).count() *
                                   static_cast<double>(least_bytes_per_second));
      if (bytes - bytes_before >= least) return self->limit_slowness(bytes);
      self->say(spdlog::level::warn, "messages that did not end", "its message does not go on, closing");
      self->close(close_code::policy_error, "the message did not go on");
    });
  }

  // Lets go of all that waits. False when a request is at work. Called by the backlog, perhaps in the middle of
  // reading.
  bool give_way() {
    say(spdlog::level::warn, "clients that held most of --max-waiting-bytes",
        "refused: it holds most of the requests that wait, which are more than --max-waiting-bytes");
    close(close_code::try_again_later, "too many requests wait");
    withdraw();
    return !ticket_;
  }

  // A client that sends requests without waiting for answers is read ahead this far; reading (of its
  // pings too) then pauses until the next inference.
  bool is_too_far_ahead() const {
    return requests_.size() >= service_.options.max_requests_ahead || bytes_ahead_ > service_.options.max_message_bytes;
  }

  asio::awaitable<void> answer_requests() {
    std::optional<double> prev_total_ms;
    for (;;) {
      const auto start = Clock::now();  // the total counts from before the wait, as openpi's does
      limit_idleness();
      co_await until([this] { return going_away_ || !reading_ || !requests_.empty(); });
      idle_.cancel();
      if (going_away_) close(close_code::going_away, "the server ends");
      if (going_away_ || !reading_) co_return;
      std::optional<std::string> refusal;
      std::vector<std::uint8_t> answer;
      double infer_seconds = 0;
      Message message = next_message();
      bool is_readable = false;
      try {
        auto outcome = co_await infer(message);
        if (!outcome) continue;  // taken back: the client or the server goes away
        service_.inference_ended();
        is_readable = outcome->was_read;
        if (outcome->error) std::rethrow_exception(outcome->error);
        protocol::add_server_timing(outcome->answer, outcome->infer_ms, prev_total_ms);
        answer = protocol::encode(outcome->answer);
        infer_seconds = outcome->infer_ms / 1000;
      } catch (const std::exception& error) {
        refusal = error_text(error);
      }
      if (refusal) {
        is_in_hand_ = false;
        is_readable ? service_.metrics.failed() : service_.metrics.refused();
        co_await refuse(*refusal);
        co_return;
      }
      co_await send(answer);
      is_in_hand_ = false;
      service_.metrics.answered(infer_seconds, seconds_since(message.arrived));
      prev_total_ms = 1000 * seconds_since(start);
    }
  }

  Message next_message() {
    Message message = std::move(requests_.front());
    requests_.pop_front();
    bytes_ahead_ -= message.bytes.size();
    is_in_hand_ = true;
    changed_.cancel();
    return message;
  }

  // Waits for this request's turn and its inference. Nothing when it was taken back before that.
  asio::awaitable<std::optional<Outcome>> infer(Message& message) {
    std::optional<Outcome> outcome;
    const std::size_t size = message.bytes.size();
    // It is read when its turn comes: decoded it may take many times its bytes.
    auto bytes = std::make_shared<const MessageBytes>(std::move(message.bytes));
    // Done runs on the worker's thread and moves the connection out of itself, so that the last
    // owner lets go on the network thread.
    ticket_ = service_.worker.submit(
        [bytes = std::move(bytes), is_text = message.is_text, &limits = service_.options.decode_limits] {
          if (is_text) throw protocol::ProtocolError("message: found text, expected a binary msgpack map");
          return protocol::decode(bytes->view(), limits);
        },
        [self = shared_from_this(), &outcome](Outcome result) mutable {
          const auto executor = self->ws_.get_executor();
          asio::post(executor, [self = std::move(self), &outcome, result = std::move(result)]() mutable {
            outcome = std::move(result);
            self->ticket_.reset();
            self->changed_.cancel();
          });
        },
        size);
    co_await until([this] { return !ticket_; });
    if (is_too_far_ahead()) heard_ = true;  // reading paused: what the client said is still unread
    co_return outcome;
  }

  void withdraw() {
    if (ticket_ && service_.worker.withdraw(*ticket_)) ticket_.reset();
  }

  asio::awaitable<void> send(std::span<const std::uint8_t> frame) {
    ws_.binary(true);
    co_await write_message(asio::buffer(frame.data(), frame.size()));
  }

  // A client that does not take what it is sent loses its connection.
  asio::awaitable<void> write_message(asio::const_buffer payload) {
    writing_.expires_after(service_.options.write_timeout);
    writing_.async_wait([self = shared_from_this()](error_code cancelled) {
      if (cancelled) return;
      self->say(spdlog::level::warn, "answers that were not taken", "does not take its answer, closing");
      self->socket().close();
    });
    co_await ws_.async_write(payload, use_awaitable);
    writing_.cancel();
  }

  void limit_idleness() {
    if (service_.options.idle_timeout.count() == 0) return;
    idle_.expires_after(service_.options.idle_timeout);
    idle_.async_wait([self = shared_from_this()](error_code cancelled) {
      if (cancelled) return;
      self->say(spdlog::level::info, "idle connections", "sent no request within --idle-timeout, closing");
      self->close(close_code::policy_error, "no request within the idle time-out");
    });
  }

  asio::awaitable<void> refuse(const std::string& text) {
    say(spdlog::level::warn, "refused requests", "refused: " + text);
    ws_.text(true);
    co_await write_message(asio::buffer(text));
    close(close_code::internal_error, "Internal server error. The previous frame says why.");
  }

  // Starts the closing handshake; the watchdog ends it if the client does not.
  void close(close_code code, std::string_view reason) {
    if (close_sent_) return;
    close_sent_ = closing_ = true;
    unfinished_.reset();
    dropped_ += requests_.size();
    requests_.clear();
    bytes_ahead_ = 0;
    ws_.async_close({code, beast::string_view(reason.data(), reason.size())}, [self = shared_from_this()](error_code) {
      self->closing_ = false;
      self->changed_.cancel();
    });
    watch();
    changed_.cancel();
  }

  // Looks after the client: a ping each interval, 1011 when nothing was heard since the last one,
  // and the end of the TCP connection when the closing handshake takes too long.
  void watch() {
    const auto& options = service_.options;
    watchdog_.expires_after(close_sent_ || going_away_ ? options.handshake_timeout : options.keepalive_interval);
    watchdog_.async_wait([self = shared_from_this()](error_code cancelled) {
      if (!cancelled) self->look_after_client();
    });
  }

  void look_after_client() {
    if (close_sent_) {
      socket().close();
      return;
    }
    const bool cannot_hear = ticket_ && is_too_far_ahead();
    if (!heard_ && !cannot_hear) {
      say(spdlog::level::warn, "connections without a sign of life", "no sign of life, closing");
      close(close_code::internal_error, "keepalive ping timeout");
      return;
    }
    heard_ = false;
    if (!pinging_) {
      pinging_ = true;
      ws_.async_ping({}, [self = shared_from_this()](error_code) { self->pinging_ = false; });
    }
    watch();
  }

  void say(spdlog::level::level_enum level, const std::string& kind, const std::string& text) {
    service_.log.add(level, kind, peer_ + ": " + log_text(text));
  }

  Service& service_;
  asio::ip::address address_;
  std::string peer_;
  websocket::stream<Transport, false> ws_;  // false: no permessage-deflate
  asio::steady_timer changed_;              // never expires: its cancel() wakes the coroutines in until()
  asio::steady_timer watchdog_;
  asio::steady_timer idle_;
  asio::steady_timer writing_;
  asio::steady_timer receiving_;
  Backlog::Account account_;
  std::optional<Message> unfinished_;              // the message that is arriving
  std::deque<Message> requests_;                   // arrived, not yet submitted
  std::size_t dropped_ = 0;                        // of them, since we began to close
  std::size_t bytes_ahead_ = 0;                    // in requests_
  bool is_in_hand_ = false;                        // one of them, nothing came of it yet
  std::optional<InferenceWorker::Ticket> ticket_;  // of the request at the worker
  bool heard_ = true;                              // anything from the client since the last ping
  bool pinging_ = false;                           // a ping is being written
  bool is_asking_ = false;                         // its HTTP request has come
  bool has_answer_ = false;                        // and that was answered
  bool is_client_ = false;                         // has one of the places for clients
  bool is_websocket_ = false;                      // from after the handshake until serve() ends
  bool reading_ = false;                           // read_requests() runs
  bool close_sent_ = false;                        // we began the closing handshake
  bool closing_ = false;                           // and it is not over
  bool going_away_ = false;
};

}  // namespace

std::weak_ptr<Connection> open_connection(asio::ip::tcp::socket socket, Service& service) {
  const auto connection = std::make_shared<OpenpiConnection>(std::move(socket), service);
  connection->start();
  return connection;
}

}  // namespace pi0::server
