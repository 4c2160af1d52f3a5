// Lets coroutines wait until a condition holds. For one thread.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>

#include "server/awaitable.h"

namespace pi0::server {

class ChangeSignal {
 public:
  explicit ChangeSignal(const boost::asio::any_io_executor& executor)
      : timer_(executor, std::chrono::steady_clock::time_point::max()) {}

  // Suspends until the condition holds. Code that changes a variable which it reads must call notify().
  template <class Condition>
  boost::asio::awaitable<void> until(Condition condition) {
    boost::system::error_code cancelled;
    while (!condition()) {
      co_await timer_.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, cancelled));
    }
  }

  void notify() { timer_.cancel(); }

 private:
  boost::asio::steady_timer timer_;  // never expires; its cancel() resumes the coroutines
};

}  // namespace pi0::server
