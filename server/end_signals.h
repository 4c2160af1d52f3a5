// The signals that ask a program to end in good order.
#pragma once

#include <csignal>
#include <string>
#include <vector>

namespace pi0::server {

// SIGINT, SIGTERM, and SIGHUP unless it is ignored, as nohup makes it for a program that is to outlive its terminal.
inline std::vector<int> end_signals() {
  std::vector<int> signals = {SIGINT, SIGTERM};
  struct sigaction action {};
  if (::sigaction(SIGHUP, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) signals.push_back(SIGHUP);
  return signals;
}

inline std::string name_of_signal(int signal) {
  return signal == SIGINT ? "SIGINT" : signal == SIGTERM ? "SIGTERM" : "SIGHUP";
}

}  // namespace pi0::server
