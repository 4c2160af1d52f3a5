#include "server/session.h"

#include <spdlog/spdlog.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <utility>

#include "protocol/msgpack_numpy.h"
#include "server/cork.h"
#include "server/elapsed.h"
#include "server/error_text.h"

namespace pi0::server {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using asio::use_awaitable;
using boost::system::error_code;

namespace {

constexpr std::string_view shutting_down = "the server is shutting down";
constexpr std::size_t chunk_bytes = 64 << 10;          // read from a socket at once
constexpr std::size_t min_bytes_per_second = 4 << 10;  // of a message that is arriving

std::vector<std::uint8_t> encoded(const protocol::Dict& answer, AnswerForm form) {
  const protocol::Value* const actions = answer.find(protocol::actions_key);
  return form == AnswerForm::actions && actions != nullptr ? protocol::encode(*actions) : protocol::encode(answer);
}

}  // namespace

Session::Session(std::shared_ptr<WebSocket> ws, Service& service, PeerLog log, AnswerForm form)
    : ws_(std::move(ws)),
      service_(service),
      options_(service.options),
      log_(std::move(log)),
      form_(form),
      changed_(ws_->get_executor()),
      watchdog_(ws_->get_executor()),
      idle_deadline_(ws_->get_executor()),
      write_deadline_(ws_->get_executor()),
      message_deadline_(ws_->get_executor()),
      inbox_(service.backlog, [this] { return give_way(); }, options_.max_requests_ahead, options_.max_message_bytes) {}

asio::awaitable<void> Session::run() {
  service_.log.add(spdlog::level::info, "connections opened", "connection from " + log_.peer() + " opened");
  service_.metrics.connection_opened();
  ws_->read_message_max(options_.max_message_bytes);
  ws_->auto_fragment(false);
  ws_->control_callback([this](websocket::frame_type, beast::string_view) { heard_ = true; });
  watch();
  is_reading_ = true;
  asio::co_spawn(ws_->get_executor(), [self = shared_from_this()] { return self->read_messages(); }, asio::detached);
  try {
    co_await write_binary(service_.metadata);
    co_await answer_requests();
  } catch (const std::exception& error) {
    spdlog::debug("{}: {}", log_.peer(), error.what());
    close(CloseCode::internal_error, {});
  }
  co_await changed_.until([this] { return !is_reading_ && state_ != State::closing; });
  for (Deadline* deadline : {&watchdog_, &idle_deadline_, &write_deadline_, &message_deadline_}) deadline->cancel();
  service_.metrics.connection_closed();
  service_.metrics.dropped(inbox_.unreplied());
  service_.log.add(spdlog::level::info, "connections closed", "connection from " + log_.peer() + " closed");
}

void Session::go_away() {
  if (state_ == State::open) state_ = State::ending;
  withdraw();
  watch();
  changed_.notify();
}

// Reads until the connection ends, also while an inference runs: this is what answers pings and notices that the
// client is gone.
asio::awaitable<void> Session::read_messages() {
  try {
    // A buffer of Beast's that grows would throw bad_alloc in Beast's own code, where nobody catches it.
    std::vector<std::uint8_t> chunk(chunk_bytes);
    while (!is_closing()) {
      co_await read_message(chunk);
      // A client that does not wait for its answers is read ahead up to a limit. Beyond it reading pauses, of pings
      // too, until the next request is taken.
      co_await changed_.until([this] { return is_closing() || !inbox_.is_full(); });
    }
  } catch (const boost::system::system_error& error) {
    const error_code closed = websocket::error::closed;
    if (error.code() != closed && error.code().category() == closed.category()) {
      log_.warn("violations of the WebSocket protocol", error.code().message());
    }
  } catch (const std::exception& error) {
    out_of_memory(error);
  }
  end_reading();
}

asio::awaitable<void> Session::read_message(std::span<std::uint8_t> chunk) {
  do {
    const std::size_t size = co_await ws_->async_read_some(asio::buffer(chunk.data(), chunk.size()), use_awaitable);
    heard_ = true;
    if (is_closing()) continue;  // reads on for the client's close frame and keeps nothing
    if (!inbox_.is_receiving()) expect_progress(0);
    inbox_.append(chunk.first(size));
    service_.backlog.make_room();  // may call give_way() of this session
  } while (!ws_->is_message_done());
  message_deadline_.cancel();
  if (is_closing()) co_return;
  inbox_.finish(ws_->got_text() ? MessageType::text : MessageType::binary);
  changed_.notify();
}

// Closes the connection unless the message that is arriving goes on at least at min_bytes_per_second.
void Session::expect_progress(std::size_t bytes_before) {
  message_deadline_.start(options_.message_timeout, [this, bytes_before] {
    const std::size_t bytes = inbox_.received_bytes();
    const double seconds = std::chrono::duration<double>(options_.message_timeout).count();
    const auto expected = static_cast<std::size_t>(seconds * static_cast<double>(min_bytes_per_second));
    if (bytes - bytes_before >= expected) return expect_progress(bytes);
    log_.warn("messages that arrived too slowly", "its message arrives too slowly, closing");
    close(CloseCode::policy_error, "the message arrived too slowly");
  });
}

void Session::out_of_memory(const std::exception& error) {
  log_.error("messages for which there was no memory", std::string("no memory for its message: ") + error.what());
  service_.worker.count_fault();
  service_.inference_ended();
  close(CloseCode::internal_error, "no memory for the message");
}

void Session::end_reading() {
  message_deadline_.cancel();
  inbox_.drop_unfinished();
  is_reading_ = false;
  if (state_ != State::closing) state_ = State::closed;
  withdraw();
  changed_.notify();
}

asio::awaitable<void> Session::answer_requests() {
  std::optional<double> prev_total_ms;
  for (;;) {
    const auto start = Clock::now();  // the total includes the wait for the request, as openpi's does
    limit_idleness();
    co_await changed_.until([this] { return state_ != State::open || !inbox_.is_empty(); });
    idle_deadline_.cancel();
    if (state_ == State::ending) close(CloseCode::going_away, shutting_down);
    if (state_ != State::open) co_return;

    Message message = inbox_.take();
    const std::size_t bytes = message.bytes.size();
    changed_.notify();
    const std::optional<Reply> reply = co_await reply_to(message, prev_total_ms);
    if (!reply) continue;  // withdrawn: the client or the server goes away
    if (reply->refusal) {
      inbox_.count_reply();
      reply->was_read ? service_.metrics.failed() : service_.metrics.refused();
      co_await refuse(*reply->refusal);
      co_return;
    }
    std::optional<Cork> together;  // a client that has the answer also knows that it must not ask here again
    if (is_last_answer()) together.emplace(ws_->tcp().socket().native_handle());
    if (reply->is_reset) {
      co_await write_text(protocol::reset_answer);
      inbox_.count_reply();
      service_.metrics.reset();
      prev_total_ms.reset();  // the next request is an episode's first
    } else {
      co_await write_binary(reply->answer);
      inbox_.count_reply();
      service_.metrics.answered(reply->observations, reply->timing.infer_ms / 1000, ms_since(message.arrived) / 1000);
      service_.latencies.add(reply->timing.infer_ms, reply->timing.queue_ms);
      log_answer(message, bytes, *reply);
      prev_total_ms = ms_since(start);
    }
    if (is_last_answer()) close(CloseCode::going_away, shutting_down);
  }
}

void Session::log_answer(const Message& message, std::size_t bytes, const Reply& reply) const {
  spdlog::debug("{}: answered {} bytes with {} in {:.2f} ms: queue_ms {:.2f}, decode_ms {:.2f}, infer_ms {:.2f}",
                log_.peer(), bytes, reply.answer.size(), ms_since(message.arrived), reply.timing.queue_ms,
                reply.timing.decode_ms, reply.timing.infer_ms);
}

// Nothing when the request was withdrawn.
asio::awaitable<std::optional<Session::Reply>> Session::reply_to(Message& message,
                                                                 std::optional<double> prev_total_ms) {
  Reply reply;
  try {
    std::optional<Outcome> outcome = co_await infer(message);
    if (!outcome) co_return std::nullopt;
    service_.inference_ended();
    reply.was_read = outcome->was_read;
    if (outcome->error) std::rethrow_exception(outcome->error);
    reply.is_reset = outcome->has_nothing_to_infer;
    reply.observations = outcome->observations;
    const std::chrono::duration<double, std::milli> queued = outcome->started - message.arrived;
    reply.timing = {outcome->infer_ms, queued.count(), outcome->decode_ms, prev_total_ms};
    protocol::add_server_timing(outcome->answer, reply.timing);
    reply.answer = encoded(outcome->answer, form_);
  } catch (const std::exception& error) {
    reply.refusal = error_text(error);
  }
  co_return reply;
}

// Waits for this request's turn and its inference. Nothing when it was withdrawn before its turn.
asio::awaitable<std::optional<Outcome>> Session::infer(Message& message) {
  const std::size_t size = message.bytes.size();
  auto bytes = std::make_shared<const MessageBytes>(std::move(message.bytes));
  // Decoded only at its turn: a decoded request may take many times the memory of its bytes.
  auto read = [bytes = std::move(bytes), type = message.type,
               &limits = options_.decode_limits]() -> std::optional<protocol::Dict> {
    if (type == MessageType::text) throw protocol::ProtocolError("message: found text, expected a binary msgpack map");
    protocol::Dict request = protocol::decode(bytes->view(), limits);
    if (protocol::take_endpoint(request) == protocol::Endpoint::reset) return std::nullopt;
    return request;
  };
  // Runs on the worker's thread. It moves `self` on, so that the session never ends on that thread.
  auto done = [self = shared_from_this()](Outcome outcome) mutable {
    const auto executor = self->ws_->get_executor();
    asio::post(executor, [self = std::move(self), outcome = std::move(outcome)]() mutable {
      self->outcome_ = std::move(outcome);
      self->ticket_.reset();
      self->changed_.notify();
    });
  };
  ticket_ = service_.worker.submit(std::move(read), std::move(done), size);
  co_await changed_.until([this] { return !ticket_; });
  if (inbox_.is_full()) heard_ = true;  // reading paused: what the client sent meanwhile is still unread
  co_return std::exchange(outcome_, std::nullopt);
}

void Session::withdraw() {
  if (ticket_ && service_.worker.withdraw(*ticket_)) ticket_.reset();
}

asio::awaitable<void> Session::write_binary(std::span<const std::uint8_t> payload) {
  ws_->binary(true);
  co_await write(asio::buffer(payload.data(), payload.size()));
}

asio::awaitable<void> Session::write_text(std::string_view text) {
  ws_->text(true);
  co_await write(asio::buffer(text.data(), text.size()));
}

asio::awaitable<void> Session::refuse(const std::string& reason) {
  log_.warn("refused requests", "refused: " + reason);
  co_await write_text(reason);
  close(CloseCode::internal_error, "Internal server error. The previous frame says why.");
}

asio::awaitable<void> Session::write(asio::const_buffer payload) {
  write_deadline_.start(options_.write_timeout, [this] {
    log_.warn("answers that clients did not read", "does not read its answer, closing");
    ws_->tcp().close();
  });
  co_await ws_->async_write(payload, use_awaitable);
  write_deadline_.cancel();
}

// Called by the backlog, possibly while this session reads. Drops everything that waits; false when a request stays
// because the model works on it.
bool Session::give_way() {
  log_.warn("clients closed because of --max-waiting-bytes",
            "closing: requests that wait exceed --max-waiting-bytes, and this client's take most of them");
  close(CloseCode::try_again_later, "too many requests are waiting");
  withdraw();
  return !ticket_;
}

// Starts the closing handshake; the watchdog ends it if the client does not.
void Session::close(CloseCode code, std::string_view reason) {
  if (is_closing()) return;
  state_ = State::closing;
  inbox_.drop_all();
  message_deadline_.cancel();
  const websocket::close_reason why(code, beast::string_view(reason.data(), reason.size()));
  ws_->async_close(why, [self = shared_from_this()](error_code) {
    self->state_ = State::closed;
    self->changed_.notify();
  });
  watch();
  changed_.notify();
}

void Session::limit_idleness() {
  if (options_.idle_timeout.count() == 0) return;
  idle_deadline_.start(options_.idle_timeout, [this] {
    log_.info("idle connections", "sent no request within --idle-timeout, closing");
    close(CloseCode::policy_error, "no request within the idle timeout");
  });
}

void Session::watch() {
  watchdog_.start(state_ == State::open ? options_.keepalive_interval : options_.handshake_timeout,
                  [this] { check_client(); });
}

// Ends a closing handshake that takes too long. Otherwise pings the client, or closes the connection with 1011 when
// nothing came since the last ping.
void Session::check_client() {
  if (is_closing()) return ws_->tcp().close();
  const bool is_reading_paused = ticket_ && inbox_.is_full();
  if (!heard_ && !is_reading_paused) {
    log_.warn("connections that did not answer pings", "sent nothing since the last ping, closing");
    close(CloseCode::internal_error, "keepalive ping timeout");
    return;
  }
  heard_ = false;
  if (!is_pinging_) {
    is_pinging_ = true;
    ws_->async_ping({}, [self = shared_from_this()](error_code) { self->is_pinging_ = false; });
  }
  watch();
}

}  // namespace pi0::server
