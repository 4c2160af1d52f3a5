// How long requests took since the last line about it. For one thread.
#pragma once

#include <vector>

namespace pi0::server {

class LatencySummary {
 public:
  void add(double infer_ms, double queue_ms);  // of an answered request
  void flush();                                // logs one line and starts anew; no line without requests

 private:
  std::vector<double> infer_ms_, queue_ms_;
};

}  // namespace pi0::server
