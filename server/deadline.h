// A timer that runs a function once, unless it is started again or cancelled before. For one thread.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <utility>

namespace pi0::server {

class Deadline {
 public:
  explicit Deadline(const boost::asio::any_io_executor& executor) : timer_(executor) {}

  // `work` never runs after cancel(), another start() or the end of this object, so it may refer to the owner.
  void start(std::chrono::milliseconds time, std::function<void()> work) {
    work_ = std::make_shared<std::function<void()>>(std::move(work));
    timer_.expires_after(time);
    // Asio may have queued the handler before a cancel(): only the pointer tells whether the work is still wanted.
    timer_.async_wait([wanted = std::weak_ptr(work_)](const boost::system::error_code&) {
      if (const auto due = wanted.lock()) (*due)();
    });
  }

  void cancel() {
    work_.reset();
    timer_.cancel();
  }

 private:
  boost::asio::steady_timer timer_;
  std::shared_ptr<std::function<void()>> work_;
};

}  // namespace pi0::server
