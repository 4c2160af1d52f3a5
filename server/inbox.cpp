#include "server/inbox.h"

#include <utility>

namespace pi0::server {

void Inbox::append(std::span<const std::uint8_t> bytes) {
  if (!receiving_) receiving_.emplace(account_);
  receiving_->bytes.append(bytes);
  receiving_->share.add(bytes.size());
}

void Inbox::finish(MessageType type) {
  if (!receiving_) receiving_.emplace(account_);
  Message message = *std::exchange(receiving_, std::nullopt);
  message.share.finish();
  message.type = type;
  message.arrived = std::chrono::steady_clock::now();
  waiting_bytes_ += message.bytes.size();
  waiting_.push_back(std::move(message));
  ++unreplied_;
}

Message Inbox::take() {
  Message message = std::move(waiting_.front());
  waiting_.pop_front();
  waiting_bytes_ -= message.bytes.size();
  return message;
}

void Inbox::drop_all() {
  drop_unfinished();
  waiting_.clear();
  waiting_bytes_ = 0;
}

}  // namespace pi0::server
