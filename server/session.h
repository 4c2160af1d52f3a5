// A client's WebSocket after the upgrade: sends the metadata, then answers request after request. Runs on the network
// thread; requests are decoded and inferred on the worker's thread.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/beast/websocket/error.hpp>
#include <boost/beast/websocket/rfc6455.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/openpi_messages.h"
#include "server/awaitable.h"
#include "server/change_signal.h"
#include "server/deadline.h"
#include "server/event_log.h"
#include "server/inbox.h"
#include "server/inference_worker.h"
#include "server/routing.h"
#include "server/service.h"
#include "server/transport.h"

namespace pi0::server {

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<WebSocket> ws, Service& service, PeerLog log, AnswerForm form);

  boost::asio::awaitable<void> run();  // until the connection is closed; call once

  // The server drains: closes with 1001 after the next answer that leaves no request waiting.
  void close_after_answer() { closes_after_answer_ = true; }

  // The server shuts down: answers the request that the model works on, drops the others and closes with 1001.
  void go_away();

 private:
  using CloseCode = boost::beast::websocket::close_code;
  using Clock = std::chrono::steady_clock;

  enum class State {
    open,     // reads requests and answers them
    ending,   // go_away() was called
    closing,  // sent a close frame and waits for the client's
    closed,   // nothing more can be sent
  };
  bool is_closing() const { return state_ == State::closing || state_ == State::closed; }

  // What is sent for a request: an encoded answer, or the reason why there is none.
  struct Reply {
    std::vector<std::uint8_t> answer;
    std::optional<std::string> refusal;
    protocol::ServerTiming timing;
    std::size_t observations = 1;
    bool was_read = false;  // the request could be decoded
    bool is_reset = false;  // it was no inference
  };

  // Reading.
  boost::asio::awaitable<void> read_messages();
  boost::asio::awaitable<void> read_message(std::span<std::uint8_t> chunk);
  void expect_progress(std::size_t bytes_before);
  void out_of_memory(const std::exception& error);
  void end_reading();

  // Answering.
  boost::asio::awaitable<void> answer_requests();
  bool is_last_answer() const { return closes_after_answer_ && inbox_.is_empty() && !inbox_.is_receiving(); }
  boost::asio::awaitable<std::optional<Reply>> reply_to(Message& message, std::optional<double> prev_total_ms);
  boost::asio::awaitable<std::optional<Outcome>> infer(Message& message);
  void withdraw();
  void log_answer(const Message& message, std::size_t bytes, const Reply& reply) const;
  boost::asio::awaitable<void> write_binary(std::span<const std::uint8_t> payload);
  boost::asio::awaitable<void> write_text(std::string_view text);
  boost::asio::awaitable<void> refuse(const std::string& reason);
  boost::asio::awaitable<void> write(boost::asio::const_buffer payload);

  // Closing and keeping alive.
  bool give_way();
  void close(CloseCode code, std::string_view reason);
  void limit_idleness();
  void watch();
  void check_client();

  const std::shared_ptr<WebSocket> ws_;
  Service& service_;
  const ServerOptions& options_;
  const PeerLog log_;
  const AnswerForm form_;
  State state_ = State::open;
  ChangeSignal changed_;  // of state_, inbox_, ticket_ or is_reading_
  Deadline watchdog_;
  Deadline idle_deadline_;
  Deadline write_deadline_;
  Deadline message_deadline_;
  Inbox inbox_;
  std::optional<InferenceWorker::Ticket> ticket_;  // of the request at the worker
  std::optional<Outcome> outcome_;                 // of the last one, until it is taken
  bool closes_after_answer_ = false;               // close_after_answer() was called
  bool is_reading_ = false;                        // read_messages() runs
  bool heard_ = true;                              // anything from the client since the last ping
  bool is_pinging_ = false;                        // a ping is being written
};

}  // namespace pi0::server
