// The bytes of requests that clients have sent and that are not answered yet, of all clients together, and who gives
// way when they become too many: whoever holds most. For one thread.
#pragma once

#include <algorithm>
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
    // `give_way` drops what the client has sent, and with it shares of this account. It says whether the others go soon
    // as well; they do not when their request is at work.
    Account(Backlog& backlog, std::function<bool()> give_way) : backlog_(backlog), give_way_(std::move(give_way)) {
      place_ = backlog_.accounts_.insert(backlog_.accounts_.end(), this);
    }
    ~Account() { backlog_.accounts_.erase(place_); }
    Account(const Account&) = delete;
    Account& operator=(const Account&) = delete;

   private:
    friend class Backlog;
    Backlog& backlog_;
    std::function<bool()> give_way_;
    std::size_t bytes_ = 0;
    std::size_t unfinished_ = 0;  // of these, of a message whose end has not come
    std::size_t leaving_ = 0;     // of these, of what goes soon
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
      const std::size_t left = std::min(bytes_, account_->leaving_);
      account_->leaving_ -= left;
      account_->backlog_.leaving_ -= left;
    }
    Share(Share&& other) noexcept
        : account_(other.account_),
          bytes_(std::exchange(other.bytes_, 0)),
          finished_(std::exchange(other.finished_, true)) {}
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

  // Until the bytes are within the limit: whoever has the largest unfinished message gives way, if it is more than half
  // of what a client holds on average, else whoever holds most. That may be the caller.
  void make_room() {
    std::list<Account*> able = accounts_;  // to give something: not what is at work already
    while (bytes_ - leaving_ > max_bytes_ && !able.empty()) {
      const auto unfinished = std::ranges::max_element(able, {}, &Account::unfinished_);
      const auto largest = std::ranges::max_element(able, {}, [](const Account* a) { return a->bytes_ - a->leaving_; });
      const auto holders =
          static_cast<std::size_t>(std::ranges::count_if(able, [](const Account* a) { return a->bytes_ > 0; }));
      const bool by_unfinished = 2 * (*unfinished)->unfinished_ * std::max<std::size_t>(holders, 1) > bytes_;
      const auto loser = by_unfinished ? unfinished : largest;
      Account* const account = *loser;
      able.erase(loser);
      if (account->bytes_ == account->leaving_ || !account->give_way_()) continue;
      leaving_ += account->bytes_ - account->leaving_;
      account->leaving_ = account->bytes_;
    }
  }

 private:
  const std::size_t max_bytes_;
  std::size_t bytes_ = 0;
  std::size_t leaving_ = 0;  // of these, of what goes soon
  std::list<Account*> accounts_;
};

}  // namespace pi0::server
