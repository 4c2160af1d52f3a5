// A figure that /metrics reads at the moment it is asked.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace pi0::server {

struct GaugeValue {
  double value = 0;
  std::vector<std::pair<std::string, std::string>> labels = {};  // name, value
};

struct Gauge {
  std::string name;  // as Prometheus wants it: "pi0_queue_length"
  std::string help;
  std::function<std::vector<GaugeValue>()> read;  // on the network thread: must be quick
};

}  // namespace pi0::server
