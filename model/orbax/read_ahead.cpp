#include "model/orbax/read_ahead.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace pi0::orbax {

ReadAhead::Buffer::Buffer(std::size_t size) : size_(size) {
  void* const mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<std::byte*>(mapped);
}

ReadAhead::Buffer::~Buffer() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

ReadAhead::ReadAhead(int threads, std::uint64_t most_bytes) : most_bytes_(most_bytes) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::uint64_t ReadAhead::Array::bytes(std::int64_t index) const {
  const std::int64_t rows = std::min(rows_of_slice, reader.rows() - index * rows_of_slice);
  return static_cast<std::uint64_t>(rows) * reader.row_bytes();
}

void ReadAhead::Array::decode(std::int64_t index, Buffer& into) {
  if (into.data() == nullptr) into = Buffer(bytes(0));
  const std::int64_t first = index * rows_of_slice;
  reader.read(first, std::min(rows_of_slice, reader.rows() - first), {into.data(), bytes(index)});
}

std::size_t ReadAhead::add(ArrayReader reader, std::int64_t rows_of_slice) {
  arrays_.push_back(std::make_unique<Array>(Array{.reader = std::move(reader), .rows_of_slice = rows_of_slice}));
  const std::lock_guard lock(mutex_);
  queue(*arrays_.back(), 0);
  return arrays_.size() - 1;
}

// With the mutex held.
void ReadAhead::queue(Array& array, std::int64_t index) {
  if (index >= array.slices() || array.bytes(index) > most_bytes_ - bytes_ahead_) return;
  bytes_ahead_ += array.bytes(index);
  array.ahead = index;
  array.state = State::queued;
  queue_.push_back(&array);
  changed_.notify_all();
}

void ReadAhead::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return is_ending_ || !queue_.empty(); });
    if (is_ending_) return;
    Array& array = *queue_.front();
    queue_.pop_front();
    array.state = State::running;
    lock.unlock();
    std::exception_ptr error;
    try {
      array.decode(array.ahead, array.next);
    } catch (...) {
      error = std::current_exception();  // thrown where the slice is asked for
    }
    lock.lock();
    array.error = error;
    array.state = State::ready;
    changed_.notify_all();
  }
}

void ReadAhead::drop_ahead(Array& array, std::unique_lock<std::mutex>& lock) {
  if (array.state == State::none) return;
  if (array.state == State::queued) std::erase(queue_, &array);
  if (array.state == State::running) changed_.wait(lock, [&] { return array.state == State::ready; });
  bytes_ahead_ -= array.bytes(array.ahead);
  array.state = State::none;
}

std::span<const std::byte> ReadAhead::slice(std::size_t number, std::int64_t index) {
  Array& array = *arrays_.at(number);
  if (array.held != index) {
    std::unique_lock lock(mutex_);
    const bool is_decoded = array.ahead == index && (array.state == State::running || array.state == State::ready);
    drop_ahead(array, lock);
    if (is_decoded && array.error) std::rethrow_exception(array.error);
    array.held = -1;
    if (is_decoded) {
      std::swap(array.current, array.next);
    } else {
      lock.unlock();
      array.decode(index, array.current);
      lock.lock();
    }
    array.held = index;
    queue(array, index + 1);
  }
  return {array.current.data(), array.bytes(index)};
}

void ReadAhead::release(std::size_t number) {
  Array& array = *arrays_.at(number);
  std::unique_lock lock(mutex_);
  drop_ahead(array, lock);
  array.held = -1;
  array.current = {};
  array.next = {};
}

}  // namespace pi0::orbax
