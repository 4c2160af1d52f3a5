// The bytes of one message, in pages of their own. Freeing them gives the memory back to the system at once, which
// malloc does not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace pi0::server {

class MessageBytes {
 public:
  MessageBytes() = default;
  ~MessageBytes();
  MessageBytes(MessageBytes&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  MessageBytes& operator=(MessageBytes&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }

  void append(std::span<const std::uint8_t> bytes);  // throws std::bad_alloc and then changes nothing

  std::size_t size() const { return size_; }
  std::span<const std::uint8_t> view() const { return {data_, size_}; }

 private:
  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;  // pages beyond size_ take no memory until they are written
};

}  // namespace pi0::server
