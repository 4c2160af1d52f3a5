#include "tools/common/stop_signals.h"

#include "server/end_signals.h"
#include "tools/common/print.h"

namespace pi0::tools {

StopSignals::StopSignals(std::string program) {
  for (const int signal : server::end_signals()) signals_.add(signal);
  signals_.async_wait([this, program = std::move(program)](const boost::system::error_code& error, int signal) {
    if (error) return;
    signals_.clear();
    print(stderr, "{}: {}: stopping after the current step; a second signal ends at once\n", program,
          server::name_of_signal(signal));
    signal_ = signal;
  });
  thread_ = std::thread([this] { io_.run(); });
}

StopSignals::~StopSignals() {
  io_.stop();
  thread_.join();
}

void StopSignals::check() const {
  if (came()) throw Stopped("stopped by " + server::name_of_signal(signal_));
}

}  // namespace pi0::tools
