#include "tools/closed_loop/bounded_log.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace pi0::tools {

namespace asio = boost::asio;
namespace fs = std::filesystem;

BoundedFile::BoundedFile(fs::path path, std::size_t max_bytes)
    : path_(std::move(path)),
      head_bytes_(max_bytes / 2),
      tail_bytes_(max_bytes - head_bytes_),
      file_(path_, std::ios::binary | std::ios::in | std::ios::out | std::ios::trunc) {
  if (!file_) fail();
}

void BoundedFile::add(std::string_view bytes) {
  while (!bytes.empty()) {  // the tail is a ring
    const bool in_head = seen_ < head_bytes_;
    const std::size_t in_tail = in_head ? 0 : (seen_ - head_bytes_) % tail_bytes_;
    const std::size_t fits = std::min(bytes.size(), in_head ? head_bytes_ - seen_ : tail_bytes_ - in_tail);
    write_at(in_head ? seen_ : head_bytes_ + in_tail, bytes.substr(0, fits));
    bytes.remove_prefix(fits);
    seen_ += fits;
  }
  if (!file_.flush()) fail();  // for readers that follow the file
}

void BoundedFile::finish() {
  if (seen_ > head_bytes_ + tail_bytes_) {
    std::string tail(tail_bytes_, '\0');
    file_.seekg(static_cast<std::streamoff>(head_bytes_));
    file_.read(tail.data(), static_cast<std::streamsize>(tail.size()));
    const auto oldest = static_cast<std::ptrdiff_t>((seen_ - head_bytes_) % tail_bytes_);
    std::rotate(tail.begin(), tail.begin() + oldest, tail.end());
    write_at(head_bytes_,
             "\n[" + std::to_string(seen_ - head_bytes_ - tail_bytes_) + " bytes are left out here]\n" + tail);
  }
  file_.close();
  if (!file_) fail();
}

void BoundedFile::write_at(std::size_t place, std::string_view bytes) {
  file_.seekp(static_cast<std::streamoff>(place));
  file_.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file_) fail();
}

void BoundedFile::fail() const {
  throw std::runtime_error(path_.string() + ": cannot be written: " + std::strerror(errno));
}

// Lives as long as a program may write.
class BoundedLog::Reader : public std::enable_shared_from_this<Reader> {
 public:
  Reader(asio::io_context& io, fs::path path, std::size_t max_bytes)
      : file_(std::make_unique<BoundedFile>(std::move(path), max_bytes)), pipe_(io) {}

  void read_from(int descriptor) {
    pipe_.assign(descriptor);
    pipe_.non_blocking(true);
    wait();
  }

  void finish() {
    int waiting = 0;  // no more than that, or a program that keeps writing would keep this from ending
    ::ioctl(pipe_.native_handle(), FIONREAD, &waiting);
    while (waiting > 0) {
      const std::string_view bytes = read();
      if (bytes.empty()) break;
      file_->add(bytes);
      waiting -= static_cast<int>(bytes.size());
    }
    std::exchange(file_, nullptr)->finish();
  }

  void drop() { file_.reset(); }

 private:
  void wait() {
    pipe_.async_wait(asio::posix::stream_descriptor::wait_read, [self = shared_from_this()](const auto& error) {
      if (error) return;
      const std::string_view bytes = self->read();
      if (self->file_) self->file_->add(bytes);
      if (self->pipe_.is_open()) self->wait();
    });
  }

  // What is in the pipe; closes it when no program can write any more.
  std::string_view read() {
    boost::system::error_code error;
    const std::size_t size = pipe_.read_some(asio::buffer(bytes_), error);
    if (error == asio::error::eof) pipe_.close();
    return {bytes_.data(), size};
  }

  std::unique_ptr<BoundedFile> file_;  // null once it is finished or dropped
  asio::posix::stream_descriptor pipe_;
  std::array<char, 65536> bytes_{};  // a pipe's capacity
};

BoundedLog::BoundedLog(asio::io_context& io, const fs::path& path, std::size_t max_bytes)
    : reader_(std::make_shared<Reader>(io, path, max_bytes)) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw std::runtime_error(path.string() + ": no pipe can be made: " + std::strerror(errno));
  }
  descriptor_ = ends[1];
  reader_->read_from(ends[0]);
}

BoundedLog::~BoundedLog() {
  if (descriptor_ >= 0) ::close(descriptor_);
  reader_->drop();
}

int BoundedLog::descriptor() const { return descriptor_; }

void BoundedLog::finish() {
  ::close(std::exchange(descriptor_, -1));
  reader_->finish();
}

}  // namespace pi0::tools
