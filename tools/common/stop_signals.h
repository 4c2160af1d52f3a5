// SIGINT, SIGTERM and SIGHUP for long work that can stop cleanly between two steps.
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

// During its lifetime the first signal (server/end_signals.h) is announced on stderr and remembered until check() is
// called; a second one ends the program.
class StopSignals {
 public:
  explicit StopSignals(std::string program);  // the prefix of announcements, for example "sweep"
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  bool came() const { return signal_ != 0; }
  void check() const;  // throws Stopped, which names the signal, if one came

 private:
  std::atomic<int> signal_ = 0;
  boost::asio::io_context io_{1};
  boost::asio::signal_set signals_{io_};
  std::thread thread_;
};

}  // namespace pi0::tools
