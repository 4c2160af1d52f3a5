// The bytes of requests that clients have sent and that are not answered yet, of all clients together, and who gives way
// when they become too many: whoever holds most. For one thread.
#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <utility>

namespace pi0::server {

class Backlog {
 public:
  explicit Backlog(std::size_t max_bytes) : max_bytes_(max_bytes) {}

  // One client's part, for as long as it lives.
  class Account {
   public:
    // `give_way` drops what the client has sent, at once, and with it the shares of this account.
    Account(Backlog& backlog, std::function<void()> give_way) : backlog_(backlog), give_way_(std::move(give_way)) {
      place_ = backlog_.accounts_.insert(backlog_.accounts_.end(), this);
    }
    ~Account() { backlog_.accounts_.erase(place_); }
    Account(const Account&) = delete;
    Account& operator=(const Account&) = delete;

   private:
    friend class Backlog;
    Backlog& backlog_;
    std::function<void()> give_way_;
    std::size_t bytes_ = 0;
    std::size_t unfinished_ = 0;  // of these, of a message whose end has not come
    std::list<Account*>::iterator place_;
  };

  // A message's part in its client's, for as long as it lives.
  class Share {
   public:
    explicit Share(Account& account) : account_(&account) {}
    ~Share() {
      finish();
      account_->bytes_ -= bytes_;
      account_->backlog_.bytes_ -= bytes_;
    }
    Share(Share&& other) noexcept
        : account_(other.account_), bytes_(std::exchange(other.bytes_, 0)), finished_(std::exchange(other.finished_, true)) {}
    Share& operator=(Share&& other) noexcept {
      std::swap(account_, other.account_);
      std::swap(bytes_, other.bytes_);
      std::swap(finished_, other.finished_);
      return *this;
    }

    void add(std::size_t bytes) {
      bytes_ += bytes;
      account_->bytes_ += bytes;
      account_->unfinished_ += bytes;
      account_->backlog_.bytes_ += bytes;
    }
    void finish() {  // the message's end has come
      if (!std::exchange(finished_, true)) account_->unfinished_ -= bytes_;
    }

   private:
    Account* account_;
    std::size_t bytes_ = 0;
    bool finished_ = false;
  };

  // Until the bytes are within the limit: whoever has the largest unfinished message gives way, if it is more than half of
  // what a client holds on average, else whoever holds most. That may be the caller.
  void make_room() {
    while (bytes_ > max_bytes_ && !accounts_.empty()) {
      Account* unfinished = accounts_.front();
      Account* largest = accounts_.front();
      std::size_t holders = 0;
      for (Account* account : accounts_) {
        if (account->unfinished_ > unfinished->unfinished_) unfinished = account;
        if (account->bytes_ > largest->bytes_) largest = account;
        if (account->bytes_ > 0) ++holders;
      }
      Account* const loser = 2 * unfinished->unfinished_ > bytes_ / holders ? unfinished : largest;
      const std::size_t before = bytes_;
      loser->give_way_();
      if (bytes_ == before) return;  // what it holds is at work already
    }
  }

 private:
  const std::size_t max_bytes_;
  std::size_t bytes_ = 0;
  std::list<Account*> accounts_;
};

}  // namespace pi0::server
