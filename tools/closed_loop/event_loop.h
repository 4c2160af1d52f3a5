// What pi0 closed-loop waits for: processes that end, and signals that stop it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <chrono>
#include <functional>

namespace pi0::tools {

// During its lifetime the first signal (server/end_signals.h) interrupts every wait; when all loops have seen it, a
// second one ends the program. Of loops in several threads, one announces it on stderr.
class EventLoop {
 public:
  enum class Announces { yes, no };
  explicit EventLoop(Announces announces);

  boost::asio::io_context& io() { return io_; }  // for processes and logs; runs only during wait()
  bool interrupted() const { return interrupted_; }

  // Returns when `done` is true, which is asked at least once a second, at the deadline, or when interrupted.
  void wait(std::chrono::steady_clock::time_point deadline, const std::function<bool()>& done);

 private:
  boost::asio::io_context io_{1};
  boost::asio::signal_set signals_{io_};
  bool interrupted_ = false;
};

}  // namespace pi0::tools
