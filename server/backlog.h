// Counts the bytes of all clients' unanswered requests, and closes clients when there are too many: first those that
// hold the most. For one thread.
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

  // One client's bytes. Must outlive its shares.
  class Account {
   public:
    // `give_way` drops the client's messages and with them their shares. It returns true when the shares that are left
    // end soon, too, and false when the model still works on the client's request.
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
    std::size_t unfinished_ = 0;  // of these, in a message that is still arriving
    std::size_t leaving_ = 0;     // of these, in messages that are about to be dropped
    std::list<Account*>::iterator place_;
  };

  // One message's bytes; counted for as long as this lives.
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
    void finish() {  // the message is complete
      if (!std::exchange(finished_, true)) account_->unfinished_ -= bytes_;
    }

   private:
    Account* account_;
    std::size_t bytes_ = 0;
    bool finished_ = false;
  };

  // Calls `give_way` of accounts until the bytes are within the limit. That may be the caller's own account.
  void make_room() {
    std::list<Account*> candidates = accounts_;
    while (bytes_ - leaving_ > max_bytes_ && !candidates.empty()) {
      const auto chosen = next_to_give_way(candidates);
      Account* const account = *chosen;
      candidates.erase(chosen);
      if (account->bytes_ == account->leaving_ || !account->give_way_()) continue;
      leaving_ += account->bytes_ - account->leaving_;
      account->leaving_ = account->bytes_;
    }
  }

 private:
  // The account with the largest unfinished message, if that is more than half of what a client holds on average;
  // otherwise the account that holds the most.
  std::list<Account*>::iterator next_to_give_way(std::list<Account*>& candidates) const {
    const auto unfinished = std::ranges::max_element(candidates, {}, &Account::unfinished_);
    const auto largest =
        std::ranges::max_element(candidates, {}, [](const Account* a) { return a->bytes_ - a->leaving_; });
    const auto holders =
        static_cast<std::size_t>(std::ranges::count_if(candidates, [](const Account* a) { return a->bytes_ > 0; }));
    const bool is_large = 2 * (*unfinished)->unfinished_ * std::max<std::size_t>(holders, 1) > bytes_;
    return is_large ? unfinished : largest;
  }

  const std::size_t max_bytes_;
  std::size_t bytes_ = 0;
  std::size_t leaving_ = 0;  // of these, in messages that are about to be dropped
  std::list<Account*> accounts_;
};

}  // namespace pi0::server
