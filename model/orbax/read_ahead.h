// Several arrays, each read slice by slice, while threads decode the slices that come next.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "model/orbax/array_reader.h"

namespace pi0::orbax {

// At most one slice of each array is decoded ahead, and at most `most_bytes` of all arrays together. Call it from one
// thread.
class ReadAhead {
 public:
  ReadAhead(int threads, std::uint64_t most_bytes);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Returns the array's number. Decoding of its first slice begins if there is room.
  std::size_t add(ArrayReader reader, std::int64_t rows_of_slice);

  // Rows [index * rows_of_slice, ...) of an array; the last slice may have fewer. Valid until the next call with this
  // array. In order every row is decoded once. Throws what the reader throws.
  std::span<const std::byte> slice(std::size_t array, std::int64_t index);

  // Frees the slices of an array that is not needed any more.
  void release(std::size_t array);

 private:
  enum class State { none, queued, running, ready };
  // Memory that goes back to the system at once, which the allocator's of a thread would not.
  class Buffer {
   public:
    Buffer() = default;
    explicit Buffer(std::size_t size);
    ~Buffer();
    Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
    Buffer& operator=(Buffer&& other) noexcept {
      std::swap(data_, other.data_);
      std::swap(size_, other.size_);
      return *this;
    }
    std::byte* data() const { return data_; }

   private:
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
  };
  struct Array {
    ArrayReader reader;
    std::int64_t rows_of_slice;
    std::int64_t held = -1;   // the slice in `current`
    std::int64_t ahead = -1;  // the slice in `next`, unless its state is none
    State state = State::none;
    Buffer current = {}, next = {};
    std::exception_ptr error = {};  // of the slice ahead

    std::int64_t slices() const { return (reader.rows() - 1) / rows_of_slice + 1; }
    std::uint64_t bytes(std::int64_t index) const;
    void decode(std::int64_t index, Buffer& into);
  };
  void queue(Array& array, std::int64_t index);
  void drop_ahead(Array& array, std::unique_lock<std::mutex>& lock);
  void work();

  const std::uint64_t most_bytes_;
  std::vector<std::unique_ptr<Array>> arrays_;
  std::mutex mutex_;  // guards what follows, and `state` and `error` of arrays
  std::condition_variable changed_;
  std::deque<Array*> queue_;
  std::uint64_t bytes_ahead_ = 0;
  bool is_ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace pi0::orbax
