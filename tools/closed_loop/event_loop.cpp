#include "tools/closed_loop/event_loop.h"

#include <algorithm>

#include "server/end_signals.h"
#include "tools/common/print.h"

namespace pi0::tools {

EventLoop::EventLoop(Announces announces) {
  for (const int signal : server::end_signals()) signals_.add(signal);
  signals_.async_wait([this, announces](const boost::system::error_code& error, int signal) {
    if (error) return;
    interrupted_ = true;
    signals_.clear();  // a second one ends the program
    if (announces == Announces::yes) {
      print(stderr, "closed-loop: {}: stopping\n", server::name_of_signal(signal));
    }
  });
}

void EventLoop::wait(std::chrono::steady_clock::time_point deadline, const std::function<bool()>& done) {
  while (!done() && !interrupted_ && std::chrono::steady_clock::now() < deadline) {
    if (io_.stopped()) io_.restart();
    io_.run_one_until(std::min(deadline, std::chrono::steady_clock::now() + std::chrono::seconds(1)));
  }
}

}  // namespace pi0::tools
