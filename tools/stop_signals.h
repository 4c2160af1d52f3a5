// Ctrl-C and the like, for long work that has places where it can stop in good order.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <stdexcept>
#include <string>
#include <thread>

namespace pi0::tools {

class Stopped : public std::runtime_error {
  using runtime_error::runtime_error;
};

// While it lives, the first of the signals (server/end_signals.h) is announced on stderr and waits to be asked for; a
// second one ends the program.
class StopSignals {
 public:
  explicit StopSignals(std::string program);  // before whose name announcements stand, as "sweep"
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  bool came() const { return signal_ != 0; }
  void check() const;  // throws Stopped, which names the signal, once one came

 private:
  std::atomic<int> signal_ = 0;
  boost::asio::io_context io_{1};
  boost::asio::signal_set signals_{io_};
  std::thread thread_;
};

}  // namespace pi0::tools
