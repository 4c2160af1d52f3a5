// The bytes of requests that clients have sent and that are not answered yet, of all clients together.
// For one thread.
#pragma once

#include <cstddef>
#include <utility>

namespace pi0::server {

class Backlog {
 public:
  explicit Backlog(std::size_t max_bytes) : max_bytes_(max_bytes) {}

  bool is_full() const { return bytes_ > max_bytes_; }

  // A request's part in it, for as long as it lives.
  class Share {
   public:
    explicit Share(Backlog& backlog) : backlog_(&backlog) {}
    ~Share() { backlog_->bytes_ -= bytes_; }
    Share(Share&& other) noexcept : backlog_(other.backlog_), bytes_(std::exchange(other.bytes_, 0)) {}
    Share& operator=(Share&& other) noexcept {
      std::swap(backlog_, other.backlog_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    void add(std::size_t bytes) {
      bytes_ += bytes;
      backlog_->bytes_ += bytes;
    }

   private:
    Backlog* backlog_;
    std::size_t bytes_ = 0;
  };

 private:
  const std::size_t max_bytes_;
  std::size_t bytes_ = 0;
};

}  // namespace pi0::server
