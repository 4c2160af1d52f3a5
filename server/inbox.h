// One client's messages from their first byte until the model's thread takes them. Knows no sockets; for one thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <utility>

#include "server/backlog.h"
#include "server/message_bytes.h"

namespace pi0::server {

enum class MessageType { text, binary };

struct Message {
  explicit Message(Backlog::Account& account) : share(account) {}

  MessageBytes bytes;
  Backlog::Share share;  // counts the bytes as waiting for as long as the message lives
  MessageType type = MessageType::binary;
  std::chrono::steady_clock::time_point arrived;  // its last byte
};

class Inbox {
 public:
  // Full from `max_messages` or more than `max_bytes` on. `give_way` is that of Backlog::Account.
  Inbox(Backlog& backlog, std::function<bool()> give_way, std::size_t max_messages, std::size_t max_bytes)
      : account_(backlog, std::move(give_way)), max_messages_(max_messages), max_bytes_(max_bytes) {}

  void append(std::span<const std::uint8_t> bytes);  // throws std::bad_alloc
  void finish(MessageType type);                     // the last byte has arrived; the message may be empty
  bool is_receiving() const { return receiving_.has_value(); }
  std::size_t received_bytes() const { return receiving_ ? receiving_->bytes.size() : 0; }  // of the unfinished message

  bool is_empty() const { return waiting_.empty(); }
  bool is_full() const { return waiting_.size() >= max_messages_ || waiting_bytes_ > max_bytes_; }
  Message take();                       // the oldest that is finished; not when empty
  void count_reply() { --unreplied_; }  // to a message that was taken

  // Finished messages without a reply: waiting, taken or dropped.
  std::size_t unreplied() const { return unreplied_; }

  void drop_unfinished() { receiving_.reset(); }
  void drop_all();  // but not what was taken

 private:
  Backlog::Account account_;  // first: outlives the messages' shares
  const std::size_t max_messages_;
  const std::size_t max_bytes_;
  std::optional<Message> receiving_;
  std::deque<Message> waiting_;
  std::size_t waiting_bytes_ = 0;
  std::size_t unreplied_ = 0;
};

}  // namespace pi0::server
